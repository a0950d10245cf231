import { z } from 'zod';
import { HoldfastError, reportOf } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import type { Outcome } from '#contract/jobs.ts';
import { heartbeatResponse, progressResponse, receiveResponse, type Task } from '#contract/proxy-protocol.ts';
import type { Clock } from '#ports/clock.ts';
import type { Progress } from '../engine/request.ts';
import type { ControlPlane } from './control-plane.ts';
import type { Patience } from './patience.ts';

const WAIT_SECONDS = 20;
/** Receipts kept of one job's deliveries; older ones are spent anyway. */
const RECEIPTS_MAX = 10;
const BRIEF: Patience = { firstWaitMs: 200, maxWaitMs: 1000, totalMs: 2000 };
const empty = z.object({});

export interface TaskLoopDependencies {
  readonly plane: ControlPlane;
  readonly clock: Clock;
  /** Jobs at once; what comes beyond stays in the queue. */
  readonly slots: number;
  readonly version: string;
  /** Seconds between the proxy's own signs of life. */
  readonly heartbeatSeconds: number;
  readonly perform: (task: Task, signal: AbortSignal, onProgress: (progress: Progress) => void) => Promise<Outcome>;
  readonly log: (event: string, data?: Readonly<Record<string, unknown>>) => void;
}

interface RunningJob {
  readonly receipts: string[];
  readonly done: Promise<void>;
}

/**
 * Takes tasks and does them until the signal aborts, through any outage of the control plane. On the way out
 * running jobs are interrupted without a report: they come again to whoever runs next and go on from their journals.
 */
export async function runTaskLoop(deps: TaskLoopDependencies, signal: AbortSignal): Promise<void> {
  const running = new Map<Id<'job'>, RunningJob>();
  const heart = beat(deps, running, signal);
  const end = stopped(signal);
  let failures = 0;
  let restarted = true;
  while (!signal.aborted) {
    try {
      if (running.size >= deps.slots) {
        await Promise.race([...[...running.values()].map((job) => job.done), end]);
        continue;
      }
      const { tasks } = await deps.plane.post(
        '/v1/proxy/tasks/receive',
        { waitSeconds: WAIT_SECONDS, max: 1, restarted },
        receiveResponse,
        { signal, waitMs: WAIT_SECONDS * 1000, patience: BRIEF },
      );
      failures = 0;
      restarted = false;
      for (const task of tasks) take(deps, task, running, signal);
    } catch (error) {
      if (signal.aborted) break;
      failures++;
      if (failures === 1) deps.log('control-plane-unreachable', { error: reportOf(error).message });
      await deps.clock.sleep(Math.min(250 * 2 ** Math.min(failures, 8), 15_000), signal).catch(() => undefined);
    }
  }
  await Promise.all([heart, ...[...running.values()].map((job) => job.done)]);
}

function take(deps: TaskLoopDependencies, task: Task, running: Map<Id<'job'>, RunningJob>, signal: AbortSignal): void {
  const known = running.get(task.job);
  if (known !== undefined) {
    // Delivered again because it is not acknowledged yet: only the receipt is news.
    known.receipts.push(task.receipt);
    if (known.receipts.length > RECEIPTS_MAX) known.receipts.shift();
    return;
  }
  const receipts = [task.receipt];
  const done = doJob(deps, task, receipts, signal)
    .catch((error: unknown) => deps.log('job-unreported', { job: task.job, error: reportOf(error).message }))
    .finally(() => running.delete(task.job));
  running.set(task.job, { receipts, done });
}

async function doJob(
  deps: TaskLoopDependencies,
  task: Task,
  receipts: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  deps.log('job-started', { job: task.job, kind: task.work.kind, attempt: task.attempt });
  const cancellation = new AbortController();
  const jobSignal = AbortSignal.any([signal, cancellation.signal]);
  const ended = new AbortController();
  let progress: Progress | undefined;
  const heartbeats = reportProgress(deps, task, () => progress, cancellation, AbortSignal.any([signal, ended.signal]));
  const path = `/v1/proxy/jobs/${task.job}`;
  try {
    const outcome = await deps.perform(task, jobSignal, (now) => {
      progress = now;
    });
    ended.abort();
    await deps.plane.post(`${path}/complete`, { outcome }, empty, { signal });
    deps.log('job-done', { job: task.job });
  } catch (error) {
    ended.abort();
    if (signal.aborted) return;
    const report = cancellation.signal.aborted
      ? reportOf(new HoldfastError('cancelled', 'The job was cancelled'))
      : reportOf(error);
    deps.log('job-failed', { job: task.job, code: report.code, message: report.message });
    await deps.plane.post(`${path}/fail`, { error: wireReport(report) }, empty, { signal });
  } finally {
    ended.abort();
    await heartbeats;
  }
  for (const receipt of receipts)
    await deps.plane.post('/v1/proxy/tasks/ack', { receipt }, empty, { signal, patience: BRIEF });
}

/** Heartbeats of one job, the first at once; aborts the job when it is to stop. An outage only delays them. */
async function reportProgress(
  deps: TaskLoopDependencies,
  task: Task,
  progress: () => Progress | undefined,
  cancellation: AbortController,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const now = progress();
    try {
      const body = now === undefined ? {} : { progress: wireProgress(now) };
      const path = `/v1/proxy/jobs/${task.job}/progress`;
      const { cancel } = await deps.plane.post(path, body, progressResponse, { signal, patience: BRIEF });
      if (cancel) cancellation.abort(new HoldfastError('cancelled', 'The job was cancelled'));
    } catch (error) {
      if (!signal.aborted) deps.log('heartbeat-failed', { job: task.job, error: reportOf(error).message });
    }
    await deps.clock.sleep(task.heartbeatSeconds * 1000, signal).catch(() => undefined);
  }
}

/** The proxy's own signs of life. */
async function beat(
  deps: TaskLoopDependencies,
  running: ReadonlyMap<Id<'job'>, unknown>,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const body = { version: deps.version, running: [...running.keys()] };
    await deps.plane
      .post('/v1/proxy/heartbeat', body, heartbeatResponse, { signal, patience: BRIEF })
      .catch(() => undefined);
    await deps.clock.sleep(deps.heartbeatSeconds * 1000, signal).catch(() => undefined);
  }
}

/** Whole numbers where the wire wants them: engines estimate in fractions. */
function wireProgress(progress: Progress) {
  return {
    ...progress,
    doneBytes: Math.floor(progress.doneBytes),
    totalBytes: Math.floor(progress.totalBytes),
    transferredBytes: Math.floor(progress.transferredBytes),
    bytesPerSecond: Number.isFinite(progress.bytesPerSecond) ? Math.max(0, progress.bytesPerSecond) : 0,
  };
}

function wireReport(report: ReturnType<typeof reportOf>) {
  return JSON.parse(JSON.stringify({ ...report, message: report.message.slice(0, 4000) }));
}

function stopped(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
