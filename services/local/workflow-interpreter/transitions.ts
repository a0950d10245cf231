import { WORKFLOW_MAX_TRANSITIONS, WORKFLOW_PAYLOAD_MAX_BYTES } from '#contract/limits.ts';
import type { Clock } from '#ports/clock.ts';
import type { Random } from '#ports/random.ts';
import type { Json, JsonObject } from '#ports/table.ts';
import type { Graph, MapState, ParallelState, State, TaskState, WaitState } from '#workflows/asl.ts';
import { encodeAnyJson } from '../database/json.ts';
import { choose } from './choice.ts';
import { fill, need, place, select } from './paths.ts';
import { recover } from './recovery.ts';
import { graphOf, stateOf } from './scope.ts';
import type { ExecutionStore, Frame } from './store.ts';
import { TaskError } from './task-error.ts';

/** Events that a state adds to the history on Step Functions, so that the limit is met here where it would be there. */
const STATE_EVENTS = 2;
const TASK_EVENTS = 3;
const ITEM_EVENTS = 2;
const ERROR_MAX_CHARACTERS = 256;
const CAUSE_MAX_CHARACTERS = 32_768;
/** The ending of a Resource whose task lasts until its token is completed. */
const TOKEN_SUFFIX = '.waitForTaskToken';

/** A task that is to be run now. */
export interface Dispatch {
  readonly frame: number;
  readonly run: number;
  readonly execution: string;
  readonly resource: string;
  readonly input: Json;
  readonly token: string | undefined;
}

/**
 * The transitions of an execution. Each method is one step, to be called inside one change of the database;
 * whatever can fail is computed before anything is written.
 */
export class Transitions {
  readonly #store: ExecutionStore;
  readonly #clock: Clock;
  readonly #random: Random;
  /** Set when frames ended that handlers may still be working for; the interpreter clears it. */
  endedSome = false;

  constructor(store: ExecutionStore, clock: Clock, random: Random) {
    this.#store = store;
    this.#clock = clock;
    this.#random = random;
  }

  /** Enters a state. For a Task the answer is what to run; every other state is done with, or waits, after this. */
  enter(frame: Frame): Dispatch | undefined {
    const state = this.#stateOf(frame);
    return this.#orFail(frame, () => {
      switch (state.Type) {
        case 'Task':
          return this.#dispatch(frame, state);
        case 'Map':
          return this.#startItems(frame, state);
        case 'Parallel':
          return this.#startBranches(frame, state);
        case 'Wait':
          return this.#sleep(frame, state);
        case 'Choice': {
          const next = choose(state, select(state.InputPath, frame.input));
          return this.#goTo(frame, next, outputOf(state, frame.input));
        }
        case 'Pass': {
          const input = select(state.InputPath, frame.input);
          const filled =
            state.Parameters === undefined ? input : fill(state.Parameters, input, this.#context(frame, null));
          return this.succeed(frame, state.Result === undefined ? filled : (state.Result as Json));
        }
        case 'Succeed':
          return this.succeed(frame, null);
        case 'Fail':
          return this.fail(frame, new TaskError(state.Error ?? 'States.Failed', state.Cause ?? ''));
      }
    });
  }

  /** The state's work is done with this result: goes on to the next. */
  succeed(frame: Frame, result: Json): undefined {
    const state = this.#stateOf(frame);
    return this.#orFail(frame, (): undefined => {
      const output = outputOf(state, frame.input, result);
      if ('Next' in state && state.Next !== undefined) this.#goTo(frame, state.Next, output);
      else this.#finish(frame, output);
    });
  }

  /** The state failed: it is retried, caught, or takes what is around it down with it. */
  fail(frame: Frame, failure: TaskError): undefined {
    const recovery = recover(this.#stateOf(frame), failure, frame.attempts, () => this.#random.fraction());
    this.endedSome = true;
    if (recovery.kind === 'retry') {
      this.#store.deleteChildren(frame.id);
      this.#store.changeFrame(frame.id, {
        ...FRESH,
        phase: 'ready',
        wake_ms: this.#clock.nowMs() + recovery.delayMs,
        attempts: JSON.stringify(recovery.attempts),
      });
      this.#count(frame, TASK_EVENTS);
      return undefined;
    }
    let uncaught = failure;
    if (recovery.kind === 'catch') {
      try {
        const report = { Error: failure.error, Cause: failure.message.slice(0, CAUSE_MAX_CHARACTERS) };
        const output = encode(place(recovery.catcher.ResultPath, frame.input, report));
        this.#store.deleteChildren(frame.id);
        return this.#goTo(frame, recovery.catcher.Next, output);
      } catch (error) {
        if (!(error instanceof TaskError)) throw error;
        uncaught = error; // the report has no place in the input
      }
    }
    if (frame.parent === null) return this.#end(frame.execution, 'failed', uncaught);
    this.#store.deleteChildren(frame.parent);
    return this.fail(this.#store.frame(frame.parent)!, uncaught);
  }

  /** The task's handler has returned; it now waits for its token, unless that came first. */
  awaitToken(frame: Frame): void {
    this.#store.changeFrame(frame.id, { phase: 'token' });
  }

  /** A sign of life: the heartbeat's time begins anew. */
  heartbeat(frame: Frame): void {
    const state = this.#stateOf(frame) as TaskState;
    if (state.HeartbeatSeconds === undefined) return;
    const heartbeatMs = this.#clock.nowMs() + state.HeartbeatSeconds * 1000;
    this.#store.changeFrame(frame.id, { heartbeat_ms: heartbeatMs, wake_ms: earliest(heartbeatMs, frame.deadlineMs) });
  }

  /** A task whose time is up. */
  expire(frame: Frame): void {
    const isHeartbeat = frame.heartbeatMs !== null && frame.heartbeatMs <= this.#clock.nowMs();
    const failure = isHeartbeat
      ? new TaskError('States.HeartbeatTimeout', `No heartbeat came from ${frame.state} in time`)
      : new TaskError('States.Timeout', `${frame.state} took longer than its TimeoutSeconds`);
    this.fail(frame, failure);
  }

  /** An execution whose TimeoutSeconds are over. */
  expireExecution(name: string): void {
    this.#end(name, 'timed-out', new TaskError('States.Timeout', 'The execution took longer than its TimeoutSeconds'));
  }

  stop(name: string, cause: string): void {
    this.#end(name, 'stopped', new TaskError('States.Stopped', cause));
  }

  #dispatch(frame: Frame, state: TaskState): Dispatch | undefined {
    const nowMs = this.#clock.nowMs();
    const usesToken = state.Resource.endsWith(TOKEN_SUFFIX);
    // A run after a crash keeps the token and the deadline: whoever was handed the token before may be at work.
    const token = usesToken ? (frame.token ?? this.#newToken()) : undefined;
    const selected = select(state.InputPath, frame.input);
    const context = this.#context(frame, token ?? null);
    const input = state.Parameters === undefined ? selected : fill(state.Parameters, selected, context);
    encode(input);
    const timeoutMs = state.TimeoutSeconds === undefined ? null : nowMs + state.TimeoutSeconds * 1000;
    const deadlineMs = usesToken ? (frame.deadlineMs ?? timeoutMs) : timeoutMs;
    const everyMs = usesToken && state.HeartbeatSeconds !== undefined ? state.HeartbeatSeconds * 1000 : null;
    const heartbeatMs = everyMs === null ? null : nowMs + everyMs;
    const run = frame.run + 1;
    if (!this.#count(frame, TASK_EVENTS)) return;
    this.#store.changeFrame(frame.id, {
      phase: 'running',
      run,
      token: token ?? null,
      wake_ms: earliest(deadlineMs, heartbeatMs),
      deadline_ms: deadlineMs,
      heartbeat_ms: heartbeatMs,
      heartbeat_every_ms: everyMs,
    });
    return { frame: frame.id, run, execution: frame.execution, resource: state.Resource, input, token };
  }

  #startItems(frame: Frame, state: MapState): undefined {
    const input = select(state.InputPath, frame.input);
    const items = need(state.ItemsPath ?? '$', input);
    if (!Array.isArray(items)) throw new TaskError('States.Runtime', `${frame.state} was not given a list of items`);
    const context = this.#context(frame, null);
    const children = (items as readonly Json[]).map((value, index) => {
      const item = { Index: index, Value: value };
      const selected =
        state.ItemSelector === undefined ? value : fill(state.ItemSelector, input, { ...context, Map: { Item: item } });
      return { input: encode(selected), item, graph: state.ItemProcessor, branch: 0 };
    });
    return this.#startChildren(frame, children, state.MaxConcurrency || Number.POSITIVE_INFINITY);
  }

  #startBranches(frame: Frame, state: ParallelState): undefined {
    const selected = select(state.InputPath, frame.input);
    const filled =
      state.Parameters === undefined ? selected : fill(state.Parameters, selected, this.#context(frame, null));
    const input = encode(filled);
    const children = state.Branches.map((graph, branch) => ({ input, item: frame.item, graph, branch }));
    return this.#startChildren(frame, children, Number.POSITIVE_INFINITY);
  }

  #startChildren(
    frame: Frame,
    children: readonly { input: string; item: Json; graph: Graph; branch: number }[],
    concurrency: number,
  ): undefined {
    if (children.length === 0) return this.succeed(frame, []);
    // Counted first: a list of 100,000 items must not become rows before it is refused.
    if (!this.#count(frame, children.length * ITEM_EVENTS)) return;
    this.#store.changeFrame(frame.id, { phase: 'children', wake_ms: null });
    for (const [position, { input, item, graph, branch }] of children.entries()) {
      this.#store.addFrame({
        execution: frame.execution,
        parent: frame.id,
        position,
        scope: [...frame.scope, { state: frame.state, branch }],
        item,
        state: graph.StartAt,
        phase: position < concurrency ? 'ready' : 'queued',
        input,
        wakeMs: this.#clock.nowMs(),
      });
    }
  }

  #sleep(frame: Frame, state: WaitState): undefined {
    const input = select(state.InputPath, frame.input);
    const nowMs = this.#clock.nowMs();
    const seconds = state.SecondsPath === undefined ? state.Seconds : need(state.SecondsPath, input);
    const timestamp = state.TimestampPath === undefined ? state.Timestamp : need(state.TimestampPath, input);
    const untilMs = seconds === undefined ? Date.parse(String(timestamp)) : nowMs + Number(seconds) * 1000;
    if (!Number.isFinite(untilMs) || (seconds !== undefined && typeof seconds !== 'number')) {
      throw new TaskError('States.Runtime', `${frame.state} was not told how long to wait`);
    }
    this.#store.changeFrame(frame.id, { phase: 'sleeping', wake_ms: untilMs });
  }

  #goTo(frame: Frame, next: string, input: string): undefined {
    if (!this.#count(frame, STATE_EVENTS)) return;
    this.#store.changeFrame(frame.id, {
      ...FRESH,
      state: next,
      phase: 'ready',
      input,
      attempts: '[]',
      wake_ms: this.#clock.nowMs(),
    });
  }

  #finish(frame: Frame, output: string): void {
    if (frame.parent === null) {
      if (!output.startsWith('{')) {
        const failure = new TaskError('States.Runtime', 'The output of an execution must be an object');
        this.#end(frame.execution, 'failed', failure);
      } else {
        this.#store.endExecution(frame.execution, { status: 'succeeded', output }, this.#clock.nowMs());
      }
      return;
    }
    this.#store.changeFrame(frame.id, { ...FRESH, phase: 'done', result: output, wake_ms: null });
    this.#store.promoteNext(frame.parent, this.#clock.nowMs());
    const results = this.#store.resultsOf(frame.parent);
    if (results === undefined) return;
    this.#store.deleteChildren(frame.parent);
    this.succeed(this.#store.frame(frame.parent)!, results);
  }

  #end(name: string, status: 'failed' | 'stopped' | 'timed-out', failure: TaskError): undefined {
    this.endedSome = true;
    const error = failure.error.slice(0, ERROR_MAX_CHARACTERS);
    const cause = failure.message.slice(0, CAUSE_MAX_CHARACTERS);
    this.#store.endExecution(name, { status, error, cause }, this.#clock.nowMs());
  }

  /** Counts events; false if that was the limit and the execution has ended. */
  #count(frame: Frame, events: number): boolean {
    if (this.#store.countEvents(frame.execution, events) <= WORKFLOW_MAX_TRANSITIONS) return true;
    const text = `The execution reached the limit of ${WORKFLOW_MAX_TRANSITIONS} events`;
    this.#end(frame.execution, 'failed', new TaskError('States.Runtime', text));
    return false;
  }

  #orFail<T>(frame: Frame, work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof TaskError)) throw error;
      return this.fail(frame, error);
    }
  }

  #stateOf(frame: Frame): State {
    const { definition } = this.#store.execution(frame.execution)!;
    return stateOf(graphOf(this.#store.definition(definition), frame.scope), frame.state);
  }

  /** What `$$` is. */
  #context(frame: Frame, token: string | null): JsonObject {
    const { name, machine, startedMs, input } = this.#store.execution(frame.execution)!;
    return {
      Execution: { Id: name, Name: name, StartTime: new Date(startedMs).toISOString(), Input: JSON.parse(input) },
      StateMachine: { Name: machine },
      State: { Name: frame.state, RetryCount: frame.attempts.reduce((sum, used) => sum + used, 0) },
      ...(token === null ? {} : { Task: { Token: token } }),
      ...(frame.item === null ? {} : { Map: { Item: frame.item } }),
    };
  }

  #newToken(): string {
    return Buffer.from(this.#random.bytes(32)).toString('base64url');
  }
}

/** A frame that nothing was yet done for in its state. */
const FRESH = { token: null, deadline_ms: null, heartbeat_ms: null, heartbeat_every_ms: null } as const;

/** What a state hands to the next, as text. Throws `States.DataLimitExceeded` if that is too much. */
function outputOf(state: State, input: Json, result?: Json): string {
  if (state.Type === 'Fail') return encode(input);
  const placed =
    'ResultPath' in state ||
    state.Type === 'Task' ||
    state.Type === 'Map' ||
    state.Type === 'Parallel' ||
    state.Type === 'Pass'
      ? place(state.ResultPath, input, result ?? null)
      : select(state.InputPath, input);
  return encode(select(state.OutputPath, placed));
}

function encode(value: Json): string {
  const text = encodeAnyJson(value);
  const sizeBytes = Buffer.byteLength(text);
  if (sizeBytes <= WORKFLOW_PAYLOAD_MAX_BYTES) return text;
  throw new TaskError(
    'States.DataLimitExceeded',
    `${sizeBytes} bytes were passed between states, more than ${WORKFLOW_PAYLOAD_MAX_BYTES}`,
  );
}

function earliest(...times: readonly (number | null)[]): number | null {
  const set = times.filter((time) => time !== null);
  return set.length === 0 ? null : Math.min(...set);
}
