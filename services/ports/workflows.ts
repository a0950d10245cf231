import type { JsonObject } from './table.ts';

/**
 * Durable state machines. Adapters: our ASL interpreter (services/local), Step Functions (services/aws).
 * Every transition is persisted; after a crash each execution goes on where it was.
 */
export interface Workflows {
  /** Starts `machine` under a unique `name`; a second start with the same name and input answers the first. */
  start(machine: string, name: string, input: JsonObject): Promise<void>;
  /** Ends the task that waits with this token. Throws `not-found` if the token is spent or unknown. */
  complete(token: string, output: JsonObject): Promise<void>;
  fail(token: string, error: string, cause: string): Promise<void>;
  /** Restarts the task's heartbeat time-out. Throws `not-found` if the token is spent. */
  heartbeat(token: string): Promise<void>;
  describe(name: string): Promise<WorkflowState | undefined>;
  stop(name: string, cause: string): Promise<void>;
}

export type WorkflowState =
  | { readonly status: 'running'; readonly state: string }
  | { readonly status: 'succeeded'; readonly output: JsonObject }
  | { readonly status: 'failed' | 'stopped' | 'timed-out'; readonly error: string; readonly cause: string };
