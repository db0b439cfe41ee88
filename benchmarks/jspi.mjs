// Switches of a guest of test_switch.py in a host of V8's: `node jspi.mjs GUEST.wasm`. For each line on stdin, a number of
// times, it switches as often and prints how many nanoseconds one took.
//
// Each context is a call of a `WebAssembly.promising` function. It waits for a promise of its own, which whoever switches
// to it resolves: one promise and one microtask a switch, the least that JSPI can do with. (Ids as keys of a Map, which
// do without the conversion from BigInt, take half as long again.)

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const resume = []; // by id: what lets a suspended context go on, or starts it
let active = 0;
let nextId = 1;
let switches = 0;

const waitInActive = (resolve) => {
  resume[active] = resolve;
};

function contextCreate(pointer, index) {
  const { __indirect_function_table: table, memory } = instance.exports;
  resume[nextId] = WebAssembly.promising(table.get(index));
  new DataView(memory.buffer).setBigUint64(pointer, BigInt(nextId++), true);
  return 0;
}

function contextSwitch(wideId) {
  const id = Number(wideId);
  const go = resume[id];
  if (go === undefined) return id === active ? 0 : 28;
  const promise = new Promise(waitInActive);
  resume[id] = undefined;
  active = id;
  switches += 1;
  go(0); // what context_switch returns to it
  return promise;
}

const instance = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(process.argv[2])), {
  wasix_32v1: { context_create: contextCreate, context_switch: new WebAssembly.Suspending(contextSwitch) },
  host: { add: (a, b) => a + b },
});
instance.exports.create();
const pingPong = WebAssembly.promising(instance.exports.switch);
for await (const times of createInterface({ input: process.stdin })) {
  switches = 0;
  const began = performance.now();
  await pingPong(times / 2);
  console.log(((performance.now() - began) * 1e6) / times);
  if (switches !== Number(times)) throw new Error(`${switches} switches`);
}
