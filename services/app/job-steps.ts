import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { idSchema } from '#contract/ids.ts';
import type { Outcome } from '#contract/jobs.ts';
import type { WireErrorReport } from '#contract/problem.ts';
import { isoTime } from '#contract/time.ts';
import { admit, release } from '#domain/admission.ts';
import { advance, isFinal, type JobEvent } from '#domain/job.ts';
import type { JsonObject, TableAction } from '#ports/table.ts';
import { changeJob, openJobKey } from './jobs.ts';
import { changing } from './records.ts';
import type { Services } from './services.ts';
import { type JobRecord, stores } from './stores.ts';
import { TableVaultState } from './table-vault-state.ts';

/** Input of every step; more members are ignored. */
export const stepInput = z.object({ tenant: idSchema('tenant'), job: idSchema('job') });
export type StepInput = z.infer<typeof stepInput>;

/** What a workflow's Catch hands on, as Step Functions names it. */
export const caughtError = z.object({ Error: z.string().optional(), Cause: z.string().optional() });

/** Name of the queue that a proxy reads. */
export function proxyQueue(proxy: string): string {
  return `proxy/${proxy}`;
}

/**
 * Gives the job one of its proxy's slots; throws `busy` when all are taken, after giving back those of jobs
 * that have ended, and `cancelled` when the job is to stop.
 */
export async function admitJob(services: Services, input: StepInput): Promise<JsonObject> {
  const { jobs, slots } = stores(services.table);
  const job = (await jobs.get(input, input.job)).value;
  stopIfCancelled(job);
  const refusal = await changing(async () => {
    const found = await slots.find(input, job.proxy);
    const holders: string[] = [];
    for (const holder of found?.value.holders ?? []) {
      const state = (await jobs.find(input, holder))?.value.state;
      if (state !== undefined && !isFinal(state)) holders.push(holder);
    }
    const answer = admit({ holders, capacity: services.settings.proxySlots }, job.id);
    if (!answer.admitted) return answer.why;
    const value = { holders: [...answer.slots.holders] };
    await services.table.transact([
      found === undefined
        ? slots.insert(input, job.proxy, value)
        : slots.replace(input, job.proxy, value, found.version),
    ]);
    return undefined;
  });
  if (refusal === undefined) return {};
  await changeJob(services, input, job.id, (now) => moved(now, { event: 'held-back', why: refusal }));
  throw new HoldfastError('busy', refusal, { retryable: true });
}

/** Hands the job to its proxy under a task token. A proxy that has it already takes it for what it is: a repetition. */
export async function dispatchJob(services: Services, input: StepInput, token: string): Promise<void> {
  const job = await changeJob(services, input, input.job, (now) => {
    stopIfCancelled(now);
    if (isFinal(now.state) || now.taskToken === token) return undefined;
    const { error: _previous, ...rest } = now;
    return { ...rest, taskToken: token, state: advance(now.state, { event: 'dispatched' }) };
  });
  const body = JSON.stringify({ tenant: input.tenant, job: input.job });
  await services.queue.send(proxyQueue(job.proxy), body, { group: input.tenant });
}

/**
 * Brings the job to its final state, once: what the vault committed or the proxy reported as done counts,
 * whatever the workflow believes. The same transaction ends the session, so that a straggling proxy of a
 * failed job can no longer commit.
 */
export async function settleJob(
  services: Services,
  input: StepInput,
  caught: z.infer<typeof caughtError> | undefined,
): Promise<JsonObject> {
  const { jobs, activeBackups } = stores(services.table);
  const settled = await changing(async () => {
    const { value: job, version } = await jobs.get(input, input.job);
    if (isFinal(job.state)) return job;
    const { taskToken: _spent, ...rest } = job;
    const next: JobRecord = { ...rest, state: advance(job.state, endOf(services, job, caught)) };
    const actions: TableAction[] = [jobs.replace(input, job.id, next, version), { delete: openJobKey(input, job.id) }];
    if (job.work.kind === 'backup') {
      const active = await activeBackups.find(input, job.work.machine);
      if (active?.value.job === job.id) actions.push(activeBackups.remove(input, job.work.machine, active.version));
      const tenant = await services.table.get({ partition: 'tenants', sort: input.tenant });
      const vault = z.object({ vault: idSchema('vault') }).safeParse(tenant?.value).data?.vault;
      const scope = vault && { tenant: input.tenant, vault, job: job.id };
      const fence = scope && (await new TableVaultState(services, scope).fence(job.work.machine));
      if (fence !== undefined) actions.push(fence);
    }
    await services.table.transact(actions);
    return next;
  });
  await releaseSlot(services, input, settled);
  return { status: settled.state.status };
}

function endOf(services: Services, job: JobRecord, caught: z.infer<typeof caughtError> | undefined): JobEvent {
  const at = isoTime(services.clock.nowMs());
  const outcome = job.outcome ?? outcomeOfCommit(job);
  if (outcome !== undefined) return { event: 'succeeded', at, outcome };
  if (job.cancelRequested) return { event: 'cancelled', at };
  return { event: 'failed', at, error: job.error ?? errorOf(caught) };
}

/** A proxy that died between its commit and its report has still done its job. */
function outcomeOfCommit(job: JobRecord): Outcome | undefined {
  if (job.committedPoint === undefined) return undefined;
  return { kind: 'backup', point: job.committedPoint, disks: [], stats: {} };
}

function errorOf(caught: z.infer<typeof caughtError> | undefined): WireErrorReport {
  const name = caught?.Error ?? 'unknown';
  if (name === 'States.HeartbeatTimeout' || name === 'States.Timeout') {
    return {
      code: 'timeout',
      message: 'The proxy stopped reporting before the job was done',
      remedy: 'See that the proxy runs and reaches the control plane, then run the job again',
      retryable: true,
    };
  }
  if (name === 'busy') {
    return {
      code: 'busy',
      message: 'The proxy had no free slot for too long',
      remedy: 'Wait for its jobs to end, or spread the machines over more proxies',
      retryable: true,
    };
  }
  return { code: 'internal', message: `The workflow failed: ${name} ${caught?.Cause ?? ''}`.trim().slice(0, 1000) };
}

async function releaseSlot(services: Services, input: StepInput, job: JobRecord): Promise<void> {
  const { slots } = stores(services.table);
  await changing(async () => {
    const found = await slots.find(input, job.proxy);
    if (!found?.value.holders.includes(job.id)) return;
    const { holders } = release({ holders: found.value.holders, capacity: services.settings.proxySlots }, job.id);
    await services.table.transact([slots.replace(input, job.proxy, { holders: [...holders] }, found.version)]);
  });
}

function moved(job: JobRecord, event: JobEvent): JobRecord | undefined {
  const state = advance(job.state, event);
  return JSON.stringify(state) === JSON.stringify(job.state) ? undefined : { ...job, state };
}

function stopIfCancelled(job: JobRecord): void {
  if (job.cancelRequested) throw new HoldfastError('cancelled', `Job ${job.id} was cancelled`);
}
