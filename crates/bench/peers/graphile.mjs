// Tasks as graphile-worker jobs in PostgreSQL. It keeps no results, so they go to a table of ours.
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import { randomUUID } from "node:crypto";
import pg from "pg";
import { callUpstream, ringWebhook } from "./task.mjs";

const RESULTS = "CREATE TABLE IF NOT EXISTS results (id uuid PRIMARY KEY, body text NOT NULL)";
const silent = new Logger(() => () => {});

function connectTo(port) {
  const pool = new pg.Pool({ host: "127.0.0.1", port, user: "postgres", database: "postgres", max: 20 });
  pool.on("error", () => {});
  return pool;
}

export async function front(port) {
  const pgPool = connectTo(port);
  await pgPool.query(RESULTS);
  const utils = await makeWorkerUtils({ pgPool, logger: silent });
  await utils.migrate();
  const one = async (sql, values) => (await pgPool.query(sql, values)).rows[0];
  return {
    async accept(task) {
      const id = randomUUID();
      await utils.addJob("call", { id, ...task }, { maxAttempts: 7 });
      return id;
    },
    async result(id) {
      return (await one("SELECT body FROM results WHERE id = $1", [id]))?.body ?? null;
    },
    async left() {
      return one(
        `SELECT count(*) FILTER (WHERE attempts < max_attempts OR locked_at IS NOT NULL)::int AS waiting,
                count(*) FILTER (WHERE attempts >= max_attempts AND locked_at IS NULL)::int AS failed
         FROM graphile_worker._private_jobs`,
      );
    },
  };
}

export async function work(port, concurrency) {
  const pgPool = connectTo(port);
  const runner = await run({
    pgPool,
    logger: silent,
    // Both settings batch the fetching and completing of jobs: its fast way of working.
    preset: {
      worker: {
        concurrentJobs: concurrency,
        pollInterval: 500,
        localQueue: { size: 2 * concurrency },
        completeJobBatchDelay: 0,
      },
    },
    taskList: {
      async call(task) {
        const body = await callUpstream(task);
        await pgPool.query("INSERT INTO results VALUES ($1, $2) ON CONFLICT DO NOTHING", [task.id, body]);
        await ringWebhook(task.id, task);
      },
    },
  });
  runner.promise.catch(() => process.exit(1));
}
