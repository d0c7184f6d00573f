// The work every peer does: call the upstream with the caller's token, then tell the receiver.
import { Agent, fetch, setGlobalDispatcher } from "undici";

setGlobalDispatcher(new Agent({ connections: 256, pipelining: 1 }));

// Answers the upstream's body; throws where the call should be tried again.
export async function callUpstream({ url, token }) {
  const answer = await fetch(url, { headers: { authorization: token, accept: "application/json" } });
  const body = await answer.text();
  if (!answer.ok) throw new Error(`the upstream answered ${answer.status}`);
  return body;
}

// As many fields as Ringback sends, unsigned.
export async function ringWebhook(id, { url, webhook }) {
  const answer = await fetch(webhook, {
    method: "POST",
    headers: { "content-type": "application/json", "webhook-id": id },
    body: JSON.stringify({
      request_timestamp: new Date().toISOString(),
      request_uri: url,
      credentials_id: null,
      task_id: id,
      status: "Succeeded",
      results_uri: `/tasks/${id}`,
      error_description: null,
      error: null,
    }),
  });
  await answer.arrayBuffer();
  if (!answer.ok) throw new Error(`the receiver answered ${answer.status}`);
}
