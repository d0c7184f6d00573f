// Reads cases from standard input and prints, a line each, whether the README's functions believed them:
// first the one with the secret, then the one with the published keys.
import { readFileSync } from "node:fs";
import { verified } from "./example0.mjs";
import { verifiedByKeys } from "./example1.mjs";

const say = (check) => {
  try {
    check();
    console.log("believed");
  } catch {
    console.log("refused");
  }
};
for (const { secret, jwks, headers, body } of JSON.parse(readFileSync(0))) {
  const bytes = Buffer.from(body, "base64");
  say(() => verified(secret, headers, bytes));
  say(() => verifiedByKeys(jwks, headers, bytes));
}
