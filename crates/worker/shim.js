// The Worker's entry. Each event is handed to the WebAssembly instance; a panic leaves that instance in an unknown state,
// so the next event is given a new one.
import { DurableObject } from "cloudflare:workers";
import * as wasm from "./glue.js";

Error.stackTraceLimit = 100;

// Shared with the crate `worker`, whose panic hook sets `criticalError`.
const state = wasm.__worker_init_state();

// What to tell those who wait for the instance. Once it has trapped no promise of its own settles any more.
const waiting = new Set();
let trapped = false;
Object.defineProperty(state, "criticalError", {
  get: () => trapped,
  set(value) {
    trapped = value;
    if (trapped) {
      waiting.forEach((reject) => reject(new Error("the WebAssembly instance has trapped")));
      waiting.clear();
    }
  },
});

// Some traps are no panics, and some happen in work that nobody waits for.
addEventListener("error", (event) => noteTrap(event.error));

function noteTrap(error) {
  if (error instanceof WebAssembly.RuntimeError) {
    state.criticalError = true;
  }
}

async function enter(call) {
  if (trapped) {
    console.log("starting a new WebAssembly instance");
    wasm.__wbg_reset_state();
    state.criticalError = false;
    state.instanceId++;
  }
  const { promise: trap, reject } = Promise.withResolvers();
  waiting.add(reject);
  try {
    return await Promise.race([call(), trap]);
  } catch (error) {
    noteTrap(error);
    throw error;
  } finally {
    waiting.delete(reject);
  }
}

// A Durable Object outlives the instance that its Rust half lies in: the half is made anew with the instance.
function durable(Rust) {
  return class extends DurableObject {
    #half;
    #instance;

    #rust() {
      if (this.#instance !== state.instanceId) {
        this.#half = new Rust(this.ctx, this.env);
        this.#instance = state.instanceId;
      }
      return this.#half;
    }

    fetch(request) {
      return enter(() => this.#rust().fetch(request));
    }

    alarm() {
      return enter(() => this.#rust().alarm());
    }
  };
}

export const Flights = durable(wasm.Flights);
export const Ledger = durable(wasm.Ledger);

export default {
  async fetch(request, env, context) {
    try {
      return await enter(() => wasm.fetch(request, env, context));
    } catch (error) {
      console.error(`a request failed: ${error}`);
      return enter(() => wasm.panicked(request, env, context));
    }
  },
  scheduled: (event, env, context) => enter(() => wasm.scheduled(event, env, context)),
};
