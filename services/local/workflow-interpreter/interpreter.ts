import { HoldfastError } from '#contract/errors.ts';
import {
  WORKFLOW_MAX_RUNNING_TASKS,
  WORKFLOW_NAME_MAX_CHARACTERS,
  WORKFLOW_PAYLOAD_MAX_BYTES,
  WORKFLOW_RETENTION_SECONDS,
} from '#contract/limits.ts';
import type { Clock } from '#ports/clock.ts';
import type { Random } from '#ports/random.ts';
import type { Json, JsonObject } from '#ports/table.ts';
import type { WorkflowState, Workflows } from '#ports/workflows.ts';
import type { Machine } from '#workflows/asl.ts';
import type { Database } from '../database/database.ts';
import { encodeAnyJson, encodeJson } from '../database/json.ts';
import { ExecutionStore, type Frame } from './store.ts';
import { TaskError, taskErrorOf } from './task-error.ts';
import { type Dispatch, Transitions } from './transitions.ts';

/**
 * Does a Task's work. It may be called again for the same task after a crash, so it must be idempotent.
 *
 * @param resource  as the state has it
 * @param token  for a `.waitForTaskToken` resource: the task lasts until it is completed or failed, and the answer is ignored
 * @param signal  aborted when the task has timed out, was stopped, or the process ends: the answer is ignored then
 * @returns the task's output; what it throws fails the task with the HoldfastError's code or the error's name
 */
export type TaskHandler = (
  resource: string,
  input: Json,
  token: string | undefined,
  signal: AbortSignal,
) => Promise<Json | undefined>;

export interface InterpreterSettings {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  /** By name. An execution goes on with the definition it was started with. */
  readonly machines: Readonly<Record<string, Machine>>;
  readonly handler: TaskHandler;
  /** Handlers at work at once. */
  readonly concurrency?: number;
  /** Told when a transition could not be written; it is tried again every second. */
  readonly onError?: (error: unknown) => void;
}

const NAME = new RegExp(`^[A-Za-z0-9_.-]{1,${WORKFLOW_NAME_MAX_CHARACTERS}}$`);
/** Looks at the clock at least this often, since the wall clock may be set while we sleep. */
const SLEEP_MAX_MS = 60_000;
const RETRY_WRITE_MS = 1000;
/** Frames looked at in one go. */
const BATCH_MAX = 500;

/**
 * The Workflows port on SQLite: runs the state machines of services/workflows durably.
 *
 * The database holds everything: an execution is a set of frames, and each transition of a frame is one change, on the disk
 * before the next begins. In memory there are only the handlers at work. So after a crash {@link resume} starts
 * those anew and nothing else happens twice.
 */
export class WorkflowInterpreter implements Workflows {
  readonly #settings: InterpreterSettings;
  readonly #clock: Clock;
  readonly #database: Database;
  readonly #store: ExecutionStore;
  readonly #transitions: Transitions;
  /** Frames that a step is under way for, at most `concurrency`. */
  readonly #active = new Map<number, { run: number; readonly abort: AbortController; readonly ended: Promise<void> }>();
  readonly #closing = new AbortController();
  #bell = new AbortController();
  #loop: Promise<void> | undefined;

  constructor(settings: InterpreterSettings) {
    this.#settings = settings;
    this.#clock = settings.clock;
    this.#database = settings.database;
    this.#store = new ExecutionStore(settings.database);
    this.#transitions = new Transitions(this.#store, settings.clock, settings.random);
  }

  /** Continues every running execution, and from then on runs what is started. To be called once. */
  async resume(): Promise<void> {
    if (this.#loop !== undefined) throw new Error('resume is called once');
    await this.#database.write(() => {
      const nowMs = this.#clock.nowMs();
      this.#store.recover(nowMs);
      this.#store.sweep(nowMs - WORKFLOW_RETENTION_SECONDS * 1000, BATCH_MAX);
    });
    this.#loop = this.#run();
  }

  /** Stops working: handlers are aborted; every execution goes on at the next {@link resume}. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#ring();
    await this.#loop;
    const active = [...this.#active.values()];
    for (const { abort } of active) abort.abort();
    await Promise.all(active.map(({ ended }) => ended));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async start(machine: string, name: string, input: JsonObject): Promise<void> {
    if (!NAME.test(name)) {
      throw new HoldfastError('usage', `Not a name of an execution: ${JSON.stringify(name.slice(0, 100))}`, {
        remedy: `Use 1 to ${WORKFLOW_NAME_MAX_CHARACTERS} letters, digits, "_", "-" or ".".`,
      });
    }
    const { machines } = this.#settings;
    const definition = Object.hasOwn(machines, machine) ? machines[machine] : undefined;
    if (definition === undefined) throw new HoldfastError('not-found', `There is no state machine ${machine}`);
    const text = checkSize(encodeJson(sorted(input) as JsonObject));
    await this.#change(() => {
      const found = this.#store.execution(name);
      if (found !== undefined) {
        if (found.machine === machine && found.input === text) return;
        throw new HoldfastError('exists', `An execution ${name} was started with another machine or input`);
      }
      const nowMs = this.#clock.nowMs();
      this.#store.sweep(nowMs - WORKFLOW_RETENTION_SECONDS * 1000, 10);
      this.#store.addExecution(name, machine, definition, text, nowMs);
      this.#store.addFrame({
        execution: name,
        parent: null,
        position: 0,
        scope: [],
        item: null,
        state: definition.StartAt,
        phase: 'ready',
        input: text,
        wakeMs: nowMs,
      });
    });
  }

  async complete(token: string, output: JsonObject): Promise<void> {
    const text = checkSize(encodeJson(output));
    await this.#change(() => {
      const frame = this.#waiting(token);
      // Whoever got the token may be done before the handler that gave it has returned; it must not hold the frame up.
      if (frame.phase === 'running') this.#transitions.endedSome = true;
      this.#transitions.succeed(frame, JSON.parse(text));
    });
  }

  async fail(token: string, error: string, cause: string): Promise<void> {
    await this.#change(() => this.#transitions.fail(this.#waiting(token), new TaskError(error, cause)));
  }

  async heartbeat(token: string): Promise<void> {
    await this.#change(() => this.#transitions.heartbeat(this.#waiting(token)));
  }

  async describe(name: string): Promise<WorkflowState | undefined> {
    return this.#database.read(() => {
      const found = this.#store.execution(name);
      if (found === undefined) return undefined;
      const { status } = found;
      if (status === 'running') return { status, state: this.#store.rootFrame(name)?.state ?? '' };
      if (status === 'succeeded') return { status, output: JSON.parse(found.output!) };
      return { status, error: found.error!, cause: found.cause! };
    });
  }

  async stop(name: string, cause: string): Promise<void> {
    await this.#change(() => {
      const found = this.#store.execution(name);
      if (found === undefined) throw new HoldfastError('not-found', `There is no execution ${name}`);
      if (found.status === 'running') this.#transitions.stop(name, cause);
    });
  }

  #waiting(token: string): Frame {
    const frame = this.#store.frameByToken(token);
    if (frame !== undefined && (frame.phase === 'running' || frame.phase === 'token')) return frame;
    throw new HoldfastError('not-found', 'No task waits with this token', {
      remedy: 'The task has ended, timed out or was stopped: give up the work for it.',
    });
  }

  /** One change, after which there may be something to do. */
  async #change<T>(change: () => T): Promise<T> {
    const answer = await this.#database.write(change);
    this.#abortEnded();
    this.#ring();
    return answer;
  }

  #ring(): void {
    this.#bell.abort();
  }

  async #run(): Promise<void> {
    while (!this.#closing.signal.aborted) {
      this.#bell = new AbortController(); // before looking, so that nothing falls in between
      let sleepMs: number;
      try {
        // One moment for all: what comes due between two looks must not be overlooked by both.
        const nowMs = this.#clock.nowMs();
        await this.#expireOverdue(nowMs);
        this.#beginDue(nowMs);
        // Whatever ends rings, so only what comes due by time is waited for.
        const nextMs = this.#database.read(() => this.#store.nextDueMs(nowMs));
        sleepMs = Math.max(0, nextMs - this.#clock.nowMs());
      } catch (error) {
        this.#settings.onError?.(error);
        sleepMs = RETRY_WRITE_MS;
      }
      if (this.#closing.signal.aborted) return;
      const { signal } = this.#bell;
      await this.#clock.sleep(Math.min(sleepMs, SLEEP_MAX_MS), signal).catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
    }
  }

  /** Fails what is over its time. It takes none of the slots, which hanging handlers may all hold. */
  async #expireOverdue(nowMs: number): Promise<void> {
    const overdue = () => ({
      executions: this.#store.overdueExecutions(nowMs, BATCH_MAX),
      frames: this.#store.due(['running', 'token'], nowMs, BATCH_MAX),
    });
    const found = this.#database.read(overdue);
    if (found.executions.length + found.frames.length === 0) return;
    await this.#change(() => {
      const { executions, frames } = overdue();
      for (const name of executions) this.#transitions.expireExecution(name);
      // One that fails may take others with it: each is read again.
      for (const id of frames) {
        const frame = this.#store.frame(id);
        if (frame !== undefined) this.#transitions.expire(frame);
      }
    });
  }

  /** Begins the steps that are due, as far as there are slots. */
  #beginDue(nowMs: number): void {
    const slots = (this.#settings.concurrency ?? WORKFLOW_MAX_RUNNING_TASKS) - this.#active.size;
    if (slots <= 0) return;
    // Those under way are still due: as many more are read as there are of them.
    const due = this.#database.read(() => this.#store.due(['ready', 'sleeping'], nowMs, slots + this.#active.size));
    for (const id of due.filter((one) => !this.#active.has(one)).slice(0, slots)) this.#begin(id);
  }

  #begin(id: number): void {
    const abort = new AbortController();
    const ended = this.#step(id, abort.signal)
      .catch(async (error: unknown) => {
        this.#settings.onError?.(error);
        await this.#clock.sleep(RETRY_WRITE_MS, this.#closing.signal).catch(() => {});
      })
      .finally(() => {
        if (this.#active.get(id)?.abort === abort) this.#active.delete(id);
        this.#ring();
      });
    this.#active.set(id, { run: 0, abort, ended });
  }

  async #step(id: number, signal: AbortSignal): Promise<void> {
    const dispatch = await this.#change(() => {
      const frame = this.#store.frame(id);
      if (frame?.phase === 'sleeping') return this.#transitions.succeed(frame, null);
      return frame?.phase === 'ready' ? this.#transitions.enter(frame) : undefined;
    });
    if (dispatch === undefined || signal.aborted) return;
    const active = this.#active.get(id);
    if (active !== undefined) active.run = dispatch.run;
    const outcome = await this.#handle(dispatch, signal);
    if (outcome === undefined) return;
    await this.#settle(dispatch, outcome, signal);
  }

  /** Runs the handler; `undefined` if it was aborted, whether it heeds that or not. */
  async #handle(
    dispatch: Dispatch,
    signal: AbortSignal,
  ): Promise<{ result: Json } | { failure: TaskError } | undefined> {
    const { resource, input, token } = dispatch;
    const work = (async () => {
      const result = (await this.#settings.handler(resource, input, token, signal)) ?? null;
      return { result: JSON.parse(encodeAnyJson(result)) as Json };
    })().catch((error: unknown) => ({ failure: taskErrorOf(error) }));
    const aborted = new Promise<undefined>((resolve) => {
      signal.addEventListener('abort', () => resolve(undefined), { once: true });
    });
    return Promise.race([work, aborted]);
  }

  /** Writes what the handler answered, again and again if need be: its work must not be done twice for a full disk. */
  async #settle(
    dispatch: Dispatch,
    outcome: { result: Json } | { failure: TaskError },
    signal: AbortSignal,
  ): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#change(() => {
          const frame = this.#store.frame(dispatch.frame);
          if (frame?.run !== dispatch.run || frame.phase !== 'running') return; // completed by token, timed out or stopped
          if ('failure' in outcome) this.#transitions.fail(frame, outcome.failure);
          else if (dispatch.token === undefined) this.#transitions.succeed(frame, outcome.result);
          else this.#transitions.awaitToken(frame);
        });
        return;
      } catch (error) {
        this.#settings.onError?.(error);
        await this.#clock.sleep(RETRY_WRITE_MS, signal).catch(() => {});
      }
    }
  }

  /** Aborts handlers whose task has ended without them. */
  #abortEnded(): void {
    if (!this.#transitions.endedSome) return;
    this.#transitions.endedSome = false;
    for (const [id, { run, abort }] of this.#active) {
      if (run === 0) continue; // not begun yet
      const frame = this.#database.read(() => this.#store.frame(id));
      if (frame?.run === run && frame.phase === 'running') continue;
      abort.abort();
      this.#active.delete(id);
    }
  }
}

function checkSize(text: string): string {
  if (Buffer.byteLength(text) <= WORKFLOW_PAYLOAD_MAX_BYTES) return text;
  throw new HoldfastError('limit', `An input or output may have ${WORKFLOW_PAYLOAD_MAX_BYTES} bytes`, {
    remedy: 'Pass ids, and keep the data in the table or the object store.',
  });
}

/** The value with the fields of all objects in order, so that equal inputs are equal texts. */
function sorted(value: Json): Json {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return (value as readonly Json[]).map(sorted);
  const entries = Object.entries(value as JsonObject).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([name, inner]) => [name, sorted(inner)]));
}
