// Tasks as BullMQ jobs in Redis. The result is the job's return value, written when the job completes.
import { Queue, Worker } from "bullmq";
import { randomUUID } from "node:crypto";
import { callUpstream, ringWebhook } from "./task.mjs";

const NAME = "tasks";
const DAY = 24 * 60 * 60;
const options = {
  attempts: 7,
  backoff: { type: "exponential", delay: 500 },
  removeOnComplete: { age: DAY },
  removeOnFail: { age: DAY },
};

const connectTo = (port) => ({ host: "127.0.0.1", port, maxRetriesPerRequest: null });

export async function front(port) {
  const queue = new Queue(NAME, { connection: connectTo(port) });
  queue.on("error", () => {});
  await queue.waitUntilReady();
  return {
    async accept(task) {
      const id = randomUUID();
      await queue.add("call", task, { ...options, jobId: id });
      return id;
    },
    async result(id) {
      const job = await queue.getJob(id);
      return job?.returnvalue ?? null;
    },
    async left() {
      const { failed, ...rest } = await queue.getJobCounts("wait", "active", "delayed", "prioritized", "failed");
      return { waiting: Object.values(rest).reduce((sum, count) => sum + count, 0), failed };
    },
  };
}

export async function work(port, concurrency) {
  const worker = new Worker(
    NAME,
    async (job) => {
      const body = await callUpstream(job.data);
      await ringWebhook(job.id, job.data);
      return body;
    },
    { connection: connectTo(port), concurrency },
  );
  worker.on("error", () => {});
  await worker.waitUntilReady();
}
