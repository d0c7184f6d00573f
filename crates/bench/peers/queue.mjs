// One process of a queue: node queue.mjs <bullmq|graphile> front <store port> <port>
//                         node queue.mjs <bullmq|graphile> work <store port> <concurrency>
import Fastify from "fastify";

const [kind, role, storePort, number] = process.argv.slice(2);
const { front, work } = await import(`./${kind}.mjs`);
// A store that goes away must not end the process before the kill does.
process.on("unhandledRejection", () => {});

if (role === "work") {
  await work(Number(storePort), Number(number));
} else {
  const tasks = await front(Number(storePort));
  const server = Fastify();
  server.post("/tasks", async (request, reply) => {
    const { url, webhook } = request.body;
    const id = await tasks.accept({ url, webhook, token: request.headers.authorization });
    reply.code(202);
    return { results_uri: `/tasks/${id}`, status: "Queued", task_id: id };
  });
  server.get("/tasks/:id", async (request, reply) => {
    const body = await tasks.result(request.params.id);
    reply.code(body === null ? 404 : 200).type("application/json");
    return body ?? "{}";
  });
  server.get("/left", () => tasks.left());
  await server.listen({ host: "127.0.0.1", port: Number(number) });
}
