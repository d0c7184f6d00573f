// Tasks as invocations of a durable handler: node restate.mjs <port>
import * as restate from "@restatedev/restate-sdk";
import { callUpstream, ringWebhook } from "./task.mjs";

const tasks = restate.service({
  name: "tasks",
  handlers: {
    async run(context, task) {
      const token = context.request().headers.get("authorization");
      const body = await context.run("call", () => callUpstream({ ...task, token }));
      await context.run("webhook", () => ringWebhook(context.request().id.toString(), task));
      return body;
    },
  },
});

restate.serve({ services: [tasks], port: Number(process.argv[2]) });
