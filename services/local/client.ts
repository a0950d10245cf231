import type { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import { type Job, jobSchema, type Run, runSchema } from '#contract/jobs.ts';
import { pageSchema } from '#contract/page.ts';
import { type createRestore, type Point, pointSchema } from '#contract/points.ts';
import { type createPolicy, type Policy, policySchema } from '#contract/policies.ts';
import { errorOfProblem, PROBLEM_TYPE, problemSchema } from '#contract/problem.ts';
import { type EdgeProxy, proxySchema } from '#contract/proxies.ts';
import {
  type createMachine,
  type createSource,
  type Machine,
  machineSchema,
  type Source,
  sourceSchema,
} from '#contract/sources.ts';
import { systemClock } from './system-clock.ts';
import { systemRandom } from './system-random.ts';

const POLL_MS = 300;
/** A control plane that restarts is waited for so long, call by call. */
const OUTAGE_MS = 30_000;

/** The API's client for commands on this machine. Every call throws the problem it gets as a HoldfastError. */
export interface ApiClient {
  listProxies(): Promise<EdgeProxy[]>;
  createSource(input: z.input<typeof createSource>): Promise<Source>;
  createMachine(input: z.input<typeof createMachine>): Promise<Machine>;
  createPolicy(input: z.input<typeof createPolicy>): Promise<Policy>;
  /** Backs the machines up now; one job each in the run. */
  runNow(machines: readonly Id<'machine'>[]): Promise<Run>;
  getRun(run: Id<'run'>): Promise<Run>;
  listRuns(): Promise<Run[]>;
  getJob(job: Id<'job'>): Promise<Job>;
  /** Resolves once the job has ended, however it ended. `onProgress` is told of every change that is seen. */
  waitForJob(job: Id<'job'>, options?: { onProgress?: (job: Job) => void; signal?: AbortSignal }): Promise<Job>;
  cancelJob(job: Id<'job'>): Promise<Job>;
  /** Newest first. */
  listPoints(machine?: Id<'machine'>): Promise<Point[]>;
  /** Starts a restore; wait for the job. */
  restore(input: z.input<typeof createRestore>): Promise<Job>;
}

/** @param apiKey  as the file `api-key` in the data folder has it */
export function connectClient(url: string, apiKey: string): ApiClient {
  const call = <S extends z.ZodType>(
    method: 'GET' | 'POST',
    path: string,
    schema: S,
    body?: unknown,
    signal?: AbortSignal,
  ) => request(url, apiKey.trim(), method, path, schema, body, signal);
  const list = async <S extends z.ZodType>(path: string, item: S): Promise<z.output<S>[]> => {
    const items: z.output<S>[] = [];
    let cursor: string | undefined;
    do {
      const query = new URLSearchParams({ limit: '200', ...(cursor === undefined ? {} : { cursor }) });
      const page = await call('GET', `${path}${path.includes('?') ? '&' : '?'}${query}`, pageSchema(item));
      items.push(...(page.items as z.output<S>[]));
      cursor = page.next;
    } while (cursor !== undefined);
    return items;
  };
  const getJob = (job: Id<'job'>, signal?: AbortSignal) => call('GET', `/v1/jobs/${job}`, jobSchema, undefined, signal);
  return {
    listProxies: () => list('/v1/proxies', proxySchema),
    createSource: (input) => call('POST', '/v1/sources', sourceSchema, input),
    createMachine: (input) => call('POST', '/v1/machines', machineSchema, input),
    createPolicy: (input) => call('POST', '/v1/policies', policySchema, input),
    runNow: (machines) => call('POST', '/v1/runs', runSchema, { machines }),
    getRun: (run) => call('GET', `/v1/runs/${run}`, runSchema),
    listRuns: () => list('/v1/runs', runSchema),
    getJob: (job) => getJob(job),
    cancelJob: (job) => call('POST', `/v1/jobs/${job}/cancel`, jobSchema, {}),
    listPoints: (machine) => list(machine === undefined ? '/v1/points' : `/v1/points?machine=${machine}`, pointSchema),
    restore: (input) => call('POST', '/v1/restores', jobSchema, input),
    async waitForJob(job, { onProgress, signal } = {}) {
      let seen = '';
      for (;;) {
        signal?.throwIfAborted();
        const now = await getJob(job, signal);
        const text = JSON.stringify([now.state, now.progress]);
        if (text !== seen) onProgress?.(now);
        seen = text;
        if ('endedAt' in now.state) return now;
        await systemClock.sleep(POLL_MS, signal);
      }
    },
  };
}

function isProblem(response: Response): boolean {
  return response.headers.get('content-type')?.startsWith(PROBLEM_TYPE) ?? false;
}

async function request<S extends z.ZodType>(
  url: string,
  apiKey: string,
  method: 'GET' | 'POST',
  path: string,
  schema: S,
  body: unknown,
  signal: AbortSignal | undefined,
): Promise<z.output<S>> {
  // The same key on every attempt: an answer that was lost is asked for again, not a second thing made.
  const idempotencyKey = Buffer.from(systemRandom.bytes(16)).toString('hex');
  const untilMs = systemClock.monotonicMs() + OUTAGE_MS;
  for (;;) {
    let response: Response | undefined;
    let cause: unknown;
    try {
      response = await fetch(url + path, {
        method,
        headers: {
          authorization: `Bearer ${apiKey}`,
          ...(body === undefined ? {} : { 'content-type': 'application/json', 'idempotency-key': idempotencyKey }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        signal: signal ?? null,
      });
    } catch (error) {
      signal?.throwIfAborted();
      cause = error;
    }
    // 503: it is there, but not ready to serve yet.
    if (response === undefined || (response.status === 503 && !isProblem(response))) {
      if (systemClock.monotonicMs() < untilMs) {
        await systemClock.sleep(200, signal);
        continue;
      }
      throw new HoldfastError('store-failed', `The control plane at ${url} does not answer`, {
        remedy: 'Start it with: holdfast up',
        retryable: true,
        cause,
      });
    }
    const content: unknown = await response.json().catch(() => undefined);
    if (response.ok) return schema.parse(content);
    const problem = problemSchema.safeParse(content);
    if (problem.success) throw errorOfProblem(problem.data);
    throw new HoldfastError('protocol', `${url} answered with status ${response.status} and no problem description`);
  }
}
