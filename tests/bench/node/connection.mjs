// The store's address, as BullMQ hands it to ioredis.
export const QUEUE = 'bench';
export const connection = { path: process.env.BENCH_REDIS_SOCKET, maxRetriesPerRequest: null };
