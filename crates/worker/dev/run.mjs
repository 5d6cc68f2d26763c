// Runs the built Worker in workerd on this machine, with local stand-ins for what the platform binds to it.
//
// The first line of standard input is the settings, as JSON:
//   bundle      directory of index.js and its modules
//   persist     directory that KV, R2, Durable Objects and the cache are kept in
//   port        where to listen on 127.0.0.1; 0 or nothing for a free port
//   vars        variables and secrets, by name
//   kv          entries of the namespace ERRORS to begin with, by key
//   rateLimits  { "PULLS": { "limit": 100, "period": 60 }, … }; what is not named does not limit
//
// Once it answers, one line is printed: `ready <url of the Worker> control <url of the controls>`. Everything else on
// standard output and error is what the Worker says. It ends when standard input does, with all that it started.
//
// The controls (`key` is percent-encoded):
//   POST   /scheduled?cron=…        run the cron handler, to its end
//   GET    /r2[?prefix=…]           [{ key, size }, …]
//   GET    /r2/object?key=…         the bytes; also PUT and DELETE
//   GET    /kv[?prefix=…]           { key: value, … }
//   PUT    /kv/entry?key=…          write one; also DELETE
//   POST   /cache/purge             forget what the cache in front holds
//   POST   /restart                 a new runtime over the same storage; the body's settings replace those of the same name
import { readdirSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Log, LogLevel, Miniflare } from "miniflare";

const UNLIMITED = { limit: 1_000_000_000, period: 60 };

let settings;
let runtime;

function options() {
  const { bundle, persist, port, vars, rateLimits } = settings;
  const wasm = readdirSync(bundle).filter((name) => name.endsWith(".wasm"));
  const limits = { PULLS: UNLIMITED, REQUESTS: UNLIMITED, ...rateLimits };
  return {
    name: "entrepot",
    modulesRoot: bundle,
    modules: [
      { type: "ESModule", path: join(bundle, "index.js") },
      ...wasm.map((name) => ({ type: "CompiledWasm", path: join(bundle, name) })),
    ],
    compatibilityDate: "2026-04-01",
    host: "127.0.0.1",
    port: port ?? 0,
    // Nothing is asked of anyone outside, and the request's own headers are the only ones.
    cf: false,
    stripCfConnectingIp: false,
    log: new Log(LogLevel.WARN),
    handleRuntimeStdio: (stdout, stderr) => {
      stdout.pipe(process.stdout, { end: false });
      stderr.pipe(process.stderr, { end: false });
    },
    defaultPersistRoot: persist,
    bindings: vars ?? {},
    kvNamespaces: ["ERRORS"],
    r2Buckets: ["BLOBS"],
    durableObjects: {
      FLIGHTS: { className: "Flights", useSQLite: true },
      LEDGER: { className: "Ledger", useSQLite: true },
    },
    ratelimits: Object.fromEntries(Object.entries(limits).map(([name, simple]) => [name, { simple }])),
    analyticsEngineDatasets: { METRICS: { dataset: "entrepot" } },
  };
}

async function start() {
  runtime = new Miniflare(options());
  const url = await runtime.ready;
  // A restart comes back at the same place.
  settings.port = Number(url.port);
  const namespace = await runtime.getKVNamespace("ERRORS");
  await Promise.all(Object.entries(settings.kv ?? {}).map(([key, value]) => namespace.put(key, value)));
  return url.origin;
}

async function everything(list, prefix) {
  const found = [];
  let cursor;
  do {
    const page = await list({ prefix, cursor });
    found.push(...(page.objects ?? page.keys));
    cursor = page.cursor;
  } while (cursor);
  return found;
}

async function control(method, url, body) {
  const key = url.searchParams.get("key");
  const prefix = url.searchParams.get("prefix") ?? undefined;
  switch (`${method} ${url.pathname}`) {
    case "POST /scheduled": {
      const worker = await runtime.getWorker();
      return worker.scheduled({ cron: url.searchParams.get("cron") ?? undefined });
    }
    case "GET /r2": {
      const bucket = await runtime.getR2Bucket("BLOBS");
      const objects = await everything((page) => bucket.list(page), prefix);
      return objects.map(({ key, size }) => ({ key, size }));
    }
    case "GET /r2/object": {
      const object = await (await runtime.getR2Bucket("BLOBS")).get(key);
      return object && Buffer.from(await object.arrayBuffer());
    }
    case "PUT /r2/object":
      await (await runtime.getR2Bucket("BLOBS")).put(key, new Uint8Array(body).buffer);
      return true;
    case "DELETE /r2/object":
      await (await runtime.getR2Bucket("BLOBS")).delete(key);
      return true;
    case "GET /kv": {
      const namespace = await runtime.getKVNamespace("ERRORS");
      const keys = await everything((page) => namespace.list(page), prefix);
      return Object.fromEntries(await Promise.all(keys.map(async ({ name }) => [name, await namespace.get(name)])));
    }
    case "PUT /kv/entry":
      await (await runtime.getKVNamespace("ERRORS")).put(key, body.toString());
      return true;
    case "DELETE /kv/entry":
      await (await runtime.getKVNamespace("ERRORS")).delete(key);
      return true;
    case "POST /cache/purge":
      return runtime.purgeCache();
    case "POST /restart":
      await runtime.dispose();
      Object.assign(settings, body.length > 0 ? JSON.parse(body) : {});
      return start();
    default:
      return null;
  }
}

async function stop(status) {
  await runtime?.dispose();
  process.exit(status);
}

const controls = createServer(async (request, response) => {
  try {
    const chunks = [];
    for await (const chunk of request) {
      chunks.push(chunk);
    }
    const result = await control(request.method, new URL(request.url, "http://control"), Buffer.concat(chunks));
    response.statusCode = result === null ? 404 : 200;
    response.end(Buffer.isBuffer(result) ? result : JSON.stringify(result));
  } catch (error) {
    response.statusCode = 500;
    response.end(String(error?.stack ?? error));
  }
});

const input = createInterface({ input: process.stdin });
input.once("line", async (line) => {
  try {
    settings = JSON.parse(line);
    const url = await start();
    controls.listen(0, "127.0.0.1", () => {
      console.log(`ready ${url} control http://127.0.0.1:${controls.address().port}`);
    });
  } catch (error) {
    console.error("the Worker does not start:", error);
    await stop(1);
  }
});
input.once("close", () => stop(0));
process.once("SIGINT", () => stop(0));
process.once("SIGTERM", () => stop(0));
