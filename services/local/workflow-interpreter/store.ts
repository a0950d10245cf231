import type { Json } from '#ports/table.ts';
import type { Machine } from '#workflows/asl.ts';
import type { Database } from '../database/database.ts';
import type { Scope } from './scope.ts';

/**
 * executions: one row each, kept after the end. frames: a place in a running execution; one at first, and one more for
 * each branch of a Parallel and item of a Map while those run. Deleting a frame deletes what it started.
 */
const SCHEMA = `
CREATE TABLE IF NOT EXISTS workflow_definitions (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS executions (
  name TEXT PRIMARY KEY, machine TEXT NOT NULL, definition INTEGER NOT NULL, input TEXT NOT NULL,
  status TEXT NOT NULL, output TEXT, error TEXT, cause TEXT,
  started_ms REAL NOT NULL, ended_ms REAL, deadline_ms REAL, events INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS executions_by_deadline ON executions (deadline_ms) WHERE deadline_ms IS NOT NULL;
CREATE INDEX IF NOT EXISTS executions_by_end ON executions (ended_ms) WHERE ended_ms IS NOT NULL;
CREATE TABLE IF NOT EXISTS frames (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  execution TEXT NOT NULL REFERENCES executions (name) ON DELETE CASCADE,
  parent INTEGER REFERENCES frames (id) ON DELETE CASCADE,
  position INTEGER NOT NULL, scope TEXT NOT NULL, item TEXT,
  state TEXT NOT NULL, phase TEXT NOT NULL, input TEXT NOT NULL, result TEXT,
  attempts TEXT NOT NULL DEFAULT '[]', run INTEGER NOT NULL DEFAULT 0,
  token TEXT UNIQUE, wake_ms REAL, deadline_ms REAL, heartbeat_ms REAL, heartbeat_every_ms REAL
) STRICT;
CREATE INDEX IF NOT EXISTS frames_by_wake ON frames (phase, wake_ms) WHERE wake_ms IS NOT NULL;
CREATE INDEX IF NOT EXISTS frames_by_time ON frames (wake_ms) WHERE wake_ms IS NOT NULL;
CREATE INDEX IF NOT EXISTS frames_by_execution ON frames (execution);
CREATE INDEX IF NOT EXISTS frames_by_parent ON frames (parent, position) WHERE parent IS NOT NULL;
`;

/** Definitions kept parsed; more versions than this of all machines do not run at once. */
const PARSED_MAX = 100;

/**
 * ready: to be entered at `wakeMs` · running: its task's handler is at work · token: waits for its token ·
 * sleeping: a Wait until `wakeMs` · children: waits for its branches or items · queued: an item that waits for its
 * turn · done: an item or branch that waits for the others.
 */
export type Phase = 'ready' | 'running' | 'token' | 'sleeping' | 'children' | 'queued' | 'done';

export interface Frame {
  readonly id: number;
  readonly execution: string;
  readonly parent: number | null;
  readonly position: number;
  readonly scope: Scope;
  /** `{Index, Value}` inside a Map. */
  readonly item: Json;
  readonly state: string;
  readonly phase: Phase;
  readonly input: Json;
  readonly attempts: readonly number[];
  /** Counts runs of tasks, so that what a superseded run answers is told apart. */
  readonly run: number;
  readonly token: string | null;
  readonly deadlineMs: number | null;
  readonly heartbeatMs: number | null;
}

export interface Execution {
  readonly name: string;
  readonly machine: string;
  readonly definition: number;
  readonly input: string;
  readonly status: 'running' | 'succeeded' | 'failed' | 'stopped' | 'timed-out';
  readonly output: string | null;
  readonly error: string | null;
  readonly cause: string | null;
  readonly startedMs: number;
  readonly events: number;
}

/** What a frame's row changes to; texts are JSON. */
export interface FrameChange {
  readonly state?: string;
  readonly phase?: Phase;
  readonly input?: string;
  readonly result?: string;
  readonly attempts?: string;
  readonly run?: number;
  readonly token?: string | null;
  readonly wake_ms?: number | null;
  readonly deadline_ms?: number | null;
  readonly heartbeat_ms?: number | null;
  readonly heartbeat_every_ms?: number | null;
}

type Row = Record<string, string | number | null>;

/** The rows of executions and their frames. Everything here is synchronous, to be called inside a read or a change. */
export class ExecutionStore {
  readonly #database: Database;
  readonly #parsed = new Map<number, Machine>();

  constructor(database: Database) {
    this.#database = database;
    database.define(SCHEMA);
  }

  execution(name: string): Execution | undefined {
    const row = this.#sql('SELECT * FROM executions WHERE name = ?').get(name) as Row | undefined;
    return row && ({ ...row, startedMs: row.started_ms } as unknown as Execution);
  }

  addExecution(name: string, machine: string, definition: Machine, input: string, nowMs: number): void {
    const text = JSON.stringify(definition);
    this.#sql('INSERT INTO workflow_definitions (text) VALUES (?) ON CONFLICT DO NOTHING').run(text);
    const deadlineMs = definition.TimeoutSeconds === undefined ? null : nowMs + definition.TimeoutSeconds * 1000;
    this.#sql(
      `INSERT INTO executions (name, machine, definition, input, status, started_ms, deadline_ms, events)
       VALUES (?, ?, (SELECT id FROM workflow_definitions WHERE text = ?), ?, 'running', ?, ?, 1)`,
    ).run(name, machine, text, input, nowMs, deadlineMs);
  }

  /** Ends a running execution and removes all its frames. */
  endExecution(
    name: string,
    end: { status: Execution['status']; output?: string; error?: string; cause?: string },
    nowMs: number,
  ): void {
    this.#sql(
      `UPDATE executions SET status = ?, output = ?, error = ?, cause = ?, ended_ms = ?, deadline_ms = NULL
       WHERE name = ?`,
    ).run(end.status, end.output ?? null, end.error ?? null, end.cause ?? null, nowMs, name);
    this.#sql('DELETE FROM frames WHERE execution = ?').run(name);
  }

  /** Counts events of the history; answers how many there are now. */
  countEvents(name: string, events: number): number {
    const row = this.#sql('UPDATE executions SET events = events + ? WHERE name = ? RETURNING events').get(
      events,
      name,
    );
    return row?.events as number;
  }

  /** Running executions whose own time is up. */
  overdueExecutions(nowMs: number, max: number): string[] {
    return this.#sql('SELECT name FROM executions WHERE deadline_ms <= ? LIMIT ?')
      .all(nowMs, max)
      .map((row) => row.name as string);
  }

  /** Forgets executions that ended before a time, a few at once. */
  sweep(endedBeforeMs: number, max: number): void {
    this.#sql('DELETE FROM executions WHERE name IN (SELECT name FROM executions WHERE ended_ms < ? LIMIT ?)').run(
      endedBeforeMs,
      max,
    );
  }

  definition(id: number): Machine {
    const known = this.#parsed.get(id);
    if (known !== undefined) return known;
    const row = this.#sql('SELECT text FROM workflow_definitions WHERE id = ?').get(id) as Row;
    // Parsed by the schema when it was written.
    const machine = JSON.parse(row.text as string) as Machine;
    if (this.#parsed.size >= PARSED_MAX) this.#parsed.clear();
    this.#parsed.set(id, machine);
    return machine;
  }

  frame(id: number): Frame | undefined {
    return frameOf(this.#sql('SELECT * FROM frames WHERE id = ?').get(id) as Row | undefined);
  }

  frameByToken(token: string): Frame | undefined {
    return frameOf(this.#sql('SELECT * FROM frames WHERE token = ?').get(token) as Row | undefined);
  }

  /** The frame that the execution began with. */
  rootFrame(execution: string): Frame | undefined {
    return frameOf(
      this.#sql('SELECT * FROM frames WHERE execution = ? AND parent IS NULL').get(execution) as Row | undefined,
    );
  }

  addFrame(frame: {
    execution: string;
    parent: number | null;
    position: number;
    scope: Scope;
    item: Json;
    state: string;
    phase: 'ready' | 'queued';
    input: string;
    wakeMs: number;
  }): void {
    const { execution, parent, position, scope, item, state, phase, input, wakeMs } = frame;
    this.#sql(
      `INSERT INTO frames (execution, parent, position, scope, item, state, phase, input, wake_ms)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ).run(
      execution,
      parent,
      position,
      JSON.stringify(scope),
      JSON.stringify(item),
      state,
      phase,
      input,
      phase === 'ready' ? wakeMs : null,
    );
  }

  changeFrame(id: number, change: FrameChange): void {
    const names = Object.keys(change); // of a fixed set, in few combinations: the statements stay few
    this.#sql(`UPDATE frames SET ${names.map((name) => `${name} = ?`).join(', ')} WHERE id = ?`).run(
      ...(Object.values(change) as (string | number | null)[]),
      id,
    );
  }

  deleteChildren(parent: number): void {
    this.#sql('DELETE FROM frames WHERE parent = ?').run(parent);
  }

  /** Lets the next item of a Map begin, if one waits for its turn. */
  promoteNext(parent: number, nowMs: number): void {
    this.#sql(
      `UPDATE frames SET phase = 'ready', wake_ms = ? WHERE id =
       (SELECT id FROM frames WHERE parent = ? AND phase = 'queued' ORDER BY position LIMIT 1)`,
    ).run(nowMs, parent);
  }

  /** The results of all children in order, or `undefined` while some are not done. */
  resultsOf(parent: number): Json[] | undefined {
    const open = this.#sql("SELECT 1 FROM frames WHERE parent = ? AND phase <> 'done' LIMIT 1").get(parent);
    if (open !== undefined) return undefined;
    return this.#sql('SELECT result FROM frames WHERE parent = ? ORDER BY position')
      .all(parent)
      .map((row) => JSON.parse(row.result as string) as Json);
  }

  /** Ids of frames of some phases whose time has come, the longest due first. */
  due(phases: readonly Phase[], nowMs: number, max: number): number[] {
    return this.#sql(
      `SELECT id FROM frames WHERE phase IN (SELECT value FROM json_each(?)) AND wake_ms <= ?
       ORDER BY wake_ms, id LIMIT ?`,
    )
      .all(JSON.stringify(phases), nowMs, max)
      .map((row) => row.id as number);
  }

  /** When the next frame or execution is due after now; `Infinity` if none is. */
  nextDueMs(nowMs: number): number {
    const row = this.#sql(
      `SELECT min(due) AS due FROM (
         SELECT min(wake_ms) AS due FROM frames WHERE wake_ms > ?1
         UNION ALL SELECT min(deadline_ms) FROM executions WHERE deadline_ms > ?1)`,
    ).get(nowMs) as Row;
    return (row.due as number | null) ?? Number.POSITIVE_INFINITY;
  }

  /** After a restart: tasks whose handler died with the process are run again, and heartbeats get their full time anew. */
  recover(nowMs: number): void {
    this.#sql("UPDATE frames SET phase = 'ready', wake_ms = ? WHERE phase = 'running'").run(nowMs);
    // Nobody could send a heartbeat while we were away; that must not count against them.
    this.#sql(
      `UPDATE frames SET heartbeat_ms = ?1 + heartbeat_every_ms,
         wake_ms = min(?1 + heartbeat_every_ms, coalesce(deadline_ms, ?1 + heartbeat_every_ms))
       WHERE phase = 'token' AND heartbeat_every_ms IS NOT NULL`,
    ).run(nowMs);
  }

  #sql(text: string) {
    return this.#database.statement(text);
  }
}

function frameOf(row: Row | undefined): Frame | undefined {
  if (row === undefined) return undefined;
  const { id, execution, parent, position, state, phase, run, token } = row as unknown as Frame;
  return {
    id,
    execution,
    parent,
    position,
    state,
    phase,
    run,
    token,
    scope: JSON.parse(row.scope as string),
    item: JSON.parse(row.item as string),
    input: JSON.parse(row.input as string),
    attempts: JSON.parse(row.attempts as string),
    deadlineMs: row.deadline_ms as number | null,
    heartbeatMs: row.heartbeat_ms as number | null,
  };
}
