-- wrk: POST one job with an idempotency key of its own; at the end print what happened as one line of JSON.
local body = '{"type": "bench-noop", "idempotencyKey": "%s-%d", "payload": {"email": "albert@example.com", "name": "Albert", ' ..
  '"message": "Congratulations on the new account, and welcome to the team. Here is what to do first."}}'
local headers = { ["Content-Type"] = "application/json" }
local run, count

function init()
  run, count = tostring(os.time()) .. tostring({}):gsub("%W", ""), 0
end

function request()
  count = count + 1
  return wrk.format("POST", nil, headers, body:format(run, count))
end

function done(summary, latency)
  local errors = summary.errors
  print(("{\"requests\": %d, \"seconds\": %f, \"p50_ms\": %f, \"p99_ms\": %f, \"failed\": %d}"):format(
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
