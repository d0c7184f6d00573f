// Runs the vectors of webhook-signature: v1 by the published library, v1a by the ed25519 of the platform.
// The path of the vectors is the argument. Prints how many were signed and judged as written, and how many
// are about rules the library does not have; ends with 1 at the first that is answered otherwise.
import { createHmac, createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const vectors = JSON.parse(readFileSync(process.argv[2]));
const check = (good, name) => {
  if (!good) {
    console.error(`answered otherwise: ${name}`);
    process.exit(1);
  }
};
const decoded = (text, prefix) => Buffer.from(text.slice(prefix.length), "base64");
const signedBytes = (id, timestamp, body) => Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
// RFC 8410, 7: what stands before the 32 bytes of a seed.
const PKCS8 = Buffer.from("302e020100300506032b657004220420", "hex");
const publicKey = (bytes) =>
  createPublicKey({ format: "jwk", key: { kty: "OKP", crv: "Ed25519", x: bytes.toString("base64url") } });

let signed = 0;
let judged = 0;
let passedOver = 0;
for (const vector of vectors.sign) {
  const body = Buffer.from(vector.body_base64, "base64");
  const bytes = signedBytes(vector.id, vector.timestamp, body);
  // The library takes text only; what is signed is bytes all the same.
  const isText = Buffer.from(body.toString()).equals(body);
  const v1 = isText
    ? new Webhook(vector.secret).sign(vector.id, new Date(vector.timestamp * 1000), body)
    : `v1,${createHmac("sha256", decoded(vector.secret, "whsec_")).update(bytes).digest("base64")}`;
  check(v1 === vector.v1, vector.name);
  const seed = decoded(vector.signing_key, "whsk_").subarray(0, 32);
  const key = createPrivateKey({ format: "der", type: "pkcs8", key: Buffer.concat([PKCS8, seed]) });
  check(`v1a,${sign(null, bytes, key).toString("base64")}` === vector.v1a, vector.name);
  const known = publicKey(decoded(vector.public_key, "whpk_"));
  check(createPublicKey(key).export({ format: "jwk" }).x === known.export({ format: "jwk" }).x, vector.name);
  signed += 1;
}

const bySecret = (vector, body) => {
  const { id, timestamp, signatures } = vector;
  const headers = { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signatures };
  return vector.secrets.some((secret) => {
    try {
      new Webhook(secret).verify(body, headers, { jsonParse: false });
      return true;
    } catch {
      return false;
    }
  });
};
const byKey = (vector, body) => {
  const late = Math.abs(Number(vector.timestamp) - vector.now) > vector.tolerance_seconds;
  const bytes = signedBytes(vector.id, vector.timestamp, body);
  const offered = vector.signatures.split(" ").filter((one) => one.startsWith("v1a,"));
  const keys = vector.public_keys.map((key) => publicKey(decoded(key, "whpk_")));
  const fits = (one) => keys.some((key) => verify(null, bytes, key, decoded(one, "v1a,")));
  return !late && offered.some(fits);
};
for (const vector of vectors.verify) {
  if (["id", "timestamp", "too_many"].includes(vector.expect) || vector.tolerance_seconds !== 300) {
    passedOver += 1;
    continue;
  }
  Date.now = () => vector.now * 1000;
  const body = Buffer.from(vector.body_base64, "base64");
  check((bySecret(vector, body) || byKey(vector, body)) === (vector.expect === "ok"), vector.name);
  judged += 1;
}
console.log(signed, judged, passedOver);
