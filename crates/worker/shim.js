// The Worker's entry. Each event is handed to the WebAssembly instance; a panic leaves that instance in an unknown state,
// so the next event is given a new one.
import { DurableObject } from "cloudflare:workers";
import * as wasm from "./glue.js";

Error.stackTraceLimit = 100;

const state = wasm.__worker_init_state();

addEventListener("error", (event) => noteTrap(event.error));

async function enter(call) {
  if (state.criticalError) {
    console.log("starting a new WebAssembly instance");
    wasm.__wbg_reset_state();
    state.criticalError = false;
    state.instanceId++;
  }
  try {
    return await call();
  } catch (error) {
    noteTrap(error);
    throw error;
  }
}

function noteTrap(error) {
  if (error instanceof WebAssembly.RuntimeError) {
    state.criticalError = true;
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
  fetch: (request, env, context) => enter(() => wasm.fetch(request, env, context)),
  scheduled: (event, env, context) => enter(() => wasm.scheduled(event, env, context)),
};
