import { z } from 'zod';
import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import { type Id, idSchema } from '#contract/ids.ts';
import type { Outcome, WireProgress } from '#contract/jobs.ts';
import type { WireErrorReport } from '#contract/problem.ts';
import type { receiveRequest, Task } from '#contract/proxy-protocol.ts';
import { isoTime } from '#contract/time.ts';
import { advance, attemptOf, isFinal } from '#domain/job.ts';
import type { QueueMessage } from '#ports/queue.ts';
import { proxyQueue } from './job-steps.ts';
import { changeJob, jobOfProxy, noteProgress } from './jobs.ts';
import type { ProxyContext } from './proxy-tokens.ts';
import type { Services } from './services.ts';
import { type JobRecord, stores } from './stores.ts';
import { getTenant } from './tenants.ts';

const message = z.object({ tenant: idSchema('tenant'), job: idSchema('job') });

/** Names of a task's failure in the state machines: the first is dispatched again, the second is not. */
export const RETRYABLE_FAILURE = 'Task.Retryable';
export const FINAL_FAILURE = 'Task.Failed';

/**
 * Waits for tasks of the caller's queue. A message only names its job: what there is to do is looked up now,
 * and a message about a job that has ended is dropped here. Until it is acknowledged a message comes again,
 * so a proxy that dies finds its work when it is back.
 */
export async function receiveTasks(
  services: Services,
  caller: ProxyContext,
  request: z.output<typeof receiveRequest>,
  signal: AbortSignal,
): Promise<Task[]> {
  const queue = proxyQueue(caller.proxy);
  if (request.restarted) await sendAgain(services, caller);
  const messages = await services.queue
    .receive(queue, {
      max: request.max,
      waitSeconds: request.waitSeconds,
      visibilitySeconds: services.settings.taskVisibilitySeconds,
      signal,
    })
    .catch((error: unknown) => {
      if (signal.aborted) return [];
      throw error;
    });
  const tasks: Task[] = [];
  for (const received of messages) {
    const task = await taskOf(services, caller, received);
    if (task === undefined) await services.queue.ack(queue, received.receipt);
    else tasks.push(task);
  }
  return tasks;
}

/** Another message for each job that the proxy had been given, so that none waits for its first one to reappear. */
async function sendAgain(services: Services, caller: ProxyContext): Promise<void> {
  const found = await stores(services.table).slots.find(caller, caller.proxy);
  for (const job of found?.value.holders ?? []) {
    const body = JSON.stringify({ tenant: caller.tenant, job });
    await services.queue.send(proxyQueue(caller.proxy), body, { group: caller.tenant });
  }
}

export async function ackTask(services: Services, caller: ProxyContext, receipt: string): Promise<void> {
  await services.queue.ack(proxyQueue(caller.proxy), receipt);
}

/** A job's heartbeat. Answers whether the job is to stop. */
export async function heartbeatTask(
  services: Services,
  caller: ProxyContext,
  id: Id<'job'>,
  progress: WireProgress | undefined,
): Promise<{ cancel: boolean }> {
  const { value: job } = await jobOfProxy(services, caller, id);
  if (isFinal(job.state)) return { cancel: true };
  if (job.state.status === 'dispatched') {
    const at = isoTime(services.clock.nowMs());
    await changeJob(services, caller, id, (now) =>
      now.state.status === 'dispatched' ? { ...now, state: advance(now.state, { event: 'heard', at }) } : undefined,
    );
  }
  if (progress !== undefined) await noteProgress(services, caller, id, progress);
  if (job.taskToken !== undefined) await unlessSpent(services.workflows.heartbeat(job.taskToken));
  return { cancel: job.cancelRequested };
}

/**
 * Keeps what a job came to and lets its workflow go on. A backup counts as done only with the point that the
 * vault has committed in this job's name. Repeatable.
 */
export async function completeTask(
  services: Services,
  caller: ProxyContext,
  id: Id<'job'>,
  outcome: Outcome,
): Promise<void> {
  await jobOfProxy(services, caller, id);
  const job = await changeJob(services, caller, id, (now) => {
    checkOutcome(now, outcome);
    return isFinal(now.state) || now.outcome !== undefined ? undefined : { ...now, outcome };
  });
  await finish(services, job);
}

/** Keeps why a job failed; its workflow decides whether to try again. Repeatable. */
export async function failTask(
  services: Services,
  caller: ProxyContext,
  id: Id<'job'>,
  error: WireErrorReport,
): Promise<void> {
  await jobOfProxy(services, caller, id);
  const job = await changeJob(services, caller, id, (now) => (isFinal(now.state) ? undefined : { ...now, error }));
  if (isFinal(job.state) || job.taskToken === undefined) return;
  const name = error.retryable && !job.cancelRequested ? RETRYABLE_FAILURE : FINAL_FAILURE;
  // What happened is on the job; a workflow's history should carry names, not data.
  await unlessSpent(services.workflows.fail(job.taskToken, name, error.code));
}

async function taskOf(services: Services, caller: ProxyContext, received: QueueMessage): Promise<Task | undefined> {
  const named = message.safeParse(parseJson(received.body)).data;
  if (named?.tenant !== caller.tenant) return undefined;
  const { jobs, machines } = stores(services.table);
  const job = (await jobs.find(caller, named.job))?.value;
  if (job === undefined || job.proxy !== caller.proxy || isFinal(job.state)) return undefined;
  // Admitted but not dispatched: its own message is on the way.
  if (job.state.status === 'waiting') return undefined;
  if (job.outcome !== undefined || job.committedPoint !== undefined) {
    // Done, but the news did not get through to the workflow before its time-out or the proxy's end.
    await finish(services, job);
    return undefined;
  }
  const machine = await machines.find(caller, job.work.machine);
  if (machine === undefined) {
    const error = { code: 'not-found', message: 'The machine was removed' } as const;
    await failTask(services, caller, job.id, error);
    return undefined;
  }
  return {
    job: job.id,
    receipt: received.receipt,
    deliveries: received.deliveries,
    attempt: attemptOf(job.state),
    work: job.work,
    machine: machine.value,
    vault: (await getTenant(services, caller)).vault,
    heartbeatSeconds: services.settings.progressSeconds,
  };
}

async function finish(services: Services, job: JobRecord): Promise<void> {
  if (!isFinal(job.state) && job.taskToken !== undefined) {
    await unlessSpent(services.workflows.complete(job.taskToken, {}));
  }
}

function checkOutcome(job: JobRecord, outcome: Outcome): void {
  if (job.state.status === 'succeeded') return;
  if (isFinal(job.state)) throw new HoldfastError('conflict', `The job has ended already: ${job.state.status}`);
  const fits = outcome.kind === job.work.kind && (outcome.kind === 'restore' || outcome.point === job.committedPoint);
  if (!fits)
    throw new HoldfastError('protocol', 'What the job is said to have come to does not fit what the vault has');
}

/** A spent token means that the workflow has moved on: by a time-out, or because it heard this already. */
async function unlessSpent(call: Promise<void>): Promise<void> {
  try {
    await call;
  } catch (error) {
    if (!isHoldfastError(error, 'not-found')) throw error;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
