// Submit one load, given as JSON in argv[2] with the fields of bench.peers.base.Load, and print what it took.
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue } from 'bullmq';
import { QUEUE, connection } from './connection.mjs';

const load = JSON.parse(process.argv[2]);
const queue = new Queue(QUEUE, { connection });
await queue.waitUntilReady();

const opts = load.delay_ms ? { delay: load.delay_ms } : {};
const payload = () => (load.job === 'stamp' ? { ...load.payload, sent: `${process.hrtime.bigint()}` } : load.payload);

async function paced() {
  const start = performance.now();
  const sent = [];
  for (const offset of load.offsets_ms) {
    const wait = start + offset - performance.now();
    if (wait > 0) await sleep(wait);
    sent.push(queue.add(load.job, payload(), opts));
  }
  await Promise.all(sent);
}

async function atOnce() {
  for (let first = 0; first < load.count; first += load.chunk) {
    const size = Math.min(load.chunk, load.count - first);
    if (load.chunk === 1) await queue.add(load.job, payload(), opts);
    else await queue.addBulk(Array.from({ length: size }, () => ({ name: load.job, data: payload(), opts })));
  }
}

const cpu = process.cpuUsage();
const start = performance.now();
await (load.offsets_ms.length ? paced() : atOnce());
const seconds = (performance.now() - start) / 1000;
const used = process.cpuUsage(cpu);
console.log(JSON.stringify({ seconds, cpu_s: (used.user + used.system) / 1e6 }));
await queue.close();
