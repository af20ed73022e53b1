// BullMQ workers with default job retention: BENCH_PROCESSES of them, each with concurrency BENCH_SLOTS. The first forks the others.
import { fork } from 'node:child_process';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'bullmq';
import { QUEUE, connection } from './connection.mjs';

const stamps = process.env.BENCH_STAMPS ? fs.openSync(process.env.BENCH_STAMPS, 'a') : -1;

const handlers = {
  noop: async () => {},
  sleep: async ({ ms }) => { await sleep(ms); },
  async: async ({ ms }) => { await sleep(ms); },
  stamp: async ({ sent, ms }) => {
    fs.writeSync(stamps, `${sent} ${process.hrtime.bigint()}\n`);
    if (ms) await sleep(ms);
  },
};

const worker = new Worker(QUEUE, (job) => handlers[job.name](job.data), { connection, concurrency: Number(process.env.BENCH_SLOTS) });
worker.on('error', (error) => console.error(error));
const others = [];
for (let n = 1; n < Number(process.env.BENCH_PROCESSES); n += 1) others.push(fork(import.meta.filename, { env: { ...process.env, BENCH_PROCESSES: '1' } }));
process.on('SIGTERM', () => { others.forEach((other) => other.kill()); process.exit(0); });
