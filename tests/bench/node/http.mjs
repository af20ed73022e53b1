// POST /jobs with Express and BullMQ: one process, one job a request. Answers on BENCH_PORT.
import express from 'express';
import { Queue } from 'bullmq';
import { QUEUE, connection } from './connection.mjs';

const queue = new Queue(QUEUE, { connection });
const app = express();
app.use(express.json());
app.post('/jobs', async (request, response) => {
  const { type, payload } = request.body;
  if (typeof type !== 'string' || typeof payload !== 'object') return response.status(400).json({ title: 'type and payload are needed' });
  const job = await queue.add(type, payload);
  return response.status(202).location(`/jobs/${job.id}`).json({ status: 'accepted', jobId: job.id, type, queue: QUEUE, duplicate: false });
});
await queue.waitUntilReady();
app.listen(Number(process.env.BENCH_PORT), '127.0.0.1');
