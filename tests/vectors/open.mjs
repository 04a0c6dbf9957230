// Opens payloads of sealed format 2 with nothing but Node's standard library, as docs/PROTOCOL.md has it.
//
// Reads lines of JSON, {"keys": [hex, …], "payload": hex}, and answers each by a line: {"plaintext", "binding"}, or
// {"refused": why}. Shares no code with the packages, nor with make.mjs.
import { createDecipheriv, createHash } from "node:crypto";
import { createInterface } from "node:readline";

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function parse(payload) {
  if (payload[0] !== 2) throw new Error("not format 2");
  let at = 1;
  const take = (size) => {
    if (at + size > payload.length) throw new Error("cut short");
    at += size;
    return payload.subarray(at - size, at);
  };
  const text = () => {
    const size = take(2).readUInt16BE();
    if (size > 1024) throw new Error("a text is too long");
    return utf8.decode(take(size));
  };
  const number = () => {
    const value = take(8).readBigUInt64BE();
    if (value >= 2n ** 63n) throw new Error("a number is too large");
    return `${value}`;
  };
  const keyId = take(8).toString("hex");
  const nonce = take(12);
  const [epoch, name, environment, label] = [text(), text(), text(), text()];
  const [version, revision] = [number(), number()];
  const header = payload.subarray(0, at);
  take(16);
  return { keyId, nonce, header, binding: { epoch, name, environment, label, version, revision } };
}

function open(keys, payload) {
  const { keyId, nonce, header, binding } = parse(payload);
  const key = keys.find((each) => createHash("sha256").update(each).digest("hex").startsWith(keyId));
  if (key === undefined) throw new Error("unknown key");
  const decipher = createDecipheriv("aes-256-gcm", key, nonce);
  decipher.setAAD(header);
  decipher.setAuthTag(payload.subarray(-16));
  const plaintext = Buffer.concat([decipher.update(payload.subarray(header.length, -16)), decipher.final()]);
  return { plaintext: plaintext.toString("hex"), binding };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { keys, payload } = JSON.parse(line);
  let answer;
  try {
    answer = open(keys.map((key) => Buffer.from(key, "hex")), Buffer.from(payload, "hex"));
  } catch (error) {
    answer = { refused: error.message };
  }
  console.log(JSON.stringify(answer));
}
