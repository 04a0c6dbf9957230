// A client of another language, with nothing but its standard library: fetch, open, and follow the base stream.
// Prints a JSON line for the config as it is and for every change; ends after the number of changes it was given.
import { createDecipheriv } from "node:crypto";

const [host, token, key, name, changes] = process.argv.slice(2);
const headers = { "X-Service-Token": token };
const base = `${host}/api/v1/service/configs/${name}`;

async function read() {
  const response = await fetch(base, { headers });
  if (response.status !== 200) return { status: response.status };
  const payload = Buffer.from(await response.arrayBuffer());
  const decipher = createDecipheriv("aes-256-gcm", Buffer.from(key, "hex"), payload.subarray(0, 12));
  decipher.setAuthTag(payload.subarray(payload.length - 16));
  const plaintext = Buffer.concat([decipher.update(payload.subarray(12, payload.length - 16)), decipher.final()]);
  return JSON.parse(plaintext.toString("utf8"));
}

const stream = await fetch(`${base}/watch`, { headers: { ...headers, Accept: "text/event-stream" } });
console.log(JSON.stringify({ config: await read(), stream: stream.headers.get("content-type") }));

let buffered = "";
let left = Number(changes);
let beats = 0;
for await (const chunk of stream.body.pipeThrough(new TextDecoderStream())) {
  buffered += chunk;
  let end;
  while ((end = buffered.indexOf("\n")) >= 0) {
    const line = buffered.slice(0, end);
    buffered = buffered.slice(end + 1);
    if (line.startsWith(":")) beats += 1;
    if (!line.startsWith("data:")) continue;
    const event = JSON.parse(line.slice(5));
    console.log(JSON.stringify({ event, config: await read(), beats }));
    left -= 1;
    if (left === 0) process.exit(0);
  }
}
process.exit(1);
