import { HoldfastError } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import { type Job, type JobWork, progressSchema, type WireProgress } from '#contract/jobs.ts';
import type { Page, PageQuery } from '#contract/page.ts';
import { isFinal } from '#domain/job.ts';
import type { TableAction } from '#ports/table.ts';
import type { TenantContext } from './context.ts';
import { changing, toItem, type Versioned } from './records.ts';
import type { Services } from './services.ts';
import { type JobRecord, stores } from './stores.ts';

const progressKey = (context: TenantContext, job: string) => ({ partition: `${context.tenant}#progress`, sort: job });
/** Progress is dropped this long after a job's last sign of life. */
const PROGRESS_SECONDS = 7 * 86_400;

/** Every job that has not ended, of all tenants: what a sweep must look at after a crash. */
export const OPEN_JOBS = 'open#jobs';

export function openJobKey(context: TenantContext, job: string) {
  return { partition: OPEN_JOBS, sort: `${context.tenant}/${job}` };
}

/** The actions that make a job exist and, unless it has ended, bind the sweep to see it through to its end. */
export function insertJob(services: Services, context: TenantContext, job: JobRecord): TableAction[] {
  const insert = stores(services.table).jobs.insert(context, job.id, job);
  return isFinal(job.state) ? [insert] : [insert, insertOpenJob(context, job)];
}

/** The action that binds the sweep to see the job through to its end. */
export function insertOpenJob(context: TenantContext, job: JobRecord): TableAction {
  return { put: openJobKey(context, job.id), value: toItem({ tenant: context.tenant, job: job.id }), ifAbsent: true };
}

/** Which state machine does the work. */
export function machineOf(work: JobWork): string {
  return work.kind === 'backup' ? 'ProtectMachine' : 'RestoreRun';
}

/** Starts the job's workflow under the job's id; a second start is the first. */
export async function startJob(
  services: Services,
  context: TenantContext,
  job: Id<'job'>,
  work: JobWork,
): Promise<void> {
  await services.workflows.start(machineOf(work), job, { tenant: context.tenant, job });
}

/** Applies a change to the stored job; `undefined` means there is nothing to change. Returns the job as it then is. */
export async function changeJob(
  services: Services,
  context: TenantContext,
  id: Id<'job'>,
  change: (job: JobRecord) => JobRecord | undefined,
): Promise<JobRecord> {
  const { jobs } = stores(services.table);
  return changing(async () => {
    const found = await jobs.get(context, id);
    const next = change(found.value);
    if (next === undefined) return found.value;
    await services.table.transact([jobs.replace(context, id, next, found.version)]);
    return next;
  });
}

export async function getJob(services: Services, context: TenantContext, id: Id<'job'>): Promise<Job> {
  return shown(services, context, (await stores(services.table).jobs.get(context, id)).value);
}

/** The job once it has ended, or as it is when `waitSeconds` are over. */
export async function awaitJob(
  services: Services,
  context: TenantContext,
  id: Id<'job'>,
  waitSeconds: number,
  signal: AbortSignal,
): Promise<Job> {
  const until = services.clock.monotonicMs() + waitSeconds * 1000;
  for (;;) {
    const job = await getJob(services, context, id);
    const left = until - services.clock.monotonicMs();
    if (isFinal(job.state) || left <= 0 || signal.aborted) return job;
    await services.clock.sleep(Math.min(left, 200), signal).catch(() => undefined);
  }
}

/** Newest first. */
export async function listJobs(services: Services, context: TenantContext, query: PageQuery): Promise<Page<Job>> {
  const page = await stores(services.table).jobs.list(context, query, { newestFirst: true });
  return { ...page, items: await Promise.all(page.items.map((job) => shown(services, context, job))) };
}

/** Asks the job to stop. Its proxy hears of it with its next heartbeat; a job nobody has begun never begins. */
export async function cancelJob(services: Services, context: TenantContext, id: Id<'job'>): Promise<Job> {
  const job = await changeJob(services, context, id, (found) => {
    if (isFinal(found.state)) {
      throw new HoldfastError('conflict', `The job has ended already: ${found.state.status}`);
    }
    return found.cancelRequested ? undefined : { ...found, cancelRequested: true };
  });
  return shown(services, context, job);
}

/** Keeps how far the job is, for people to see. */
export async function noteProgress(services: Services, context: TenantContext, id: string, progress: WireProgress) {
  const expiresAtSeconds = Math.ceil(services.clock.nowMs() / 1000) + PROGRESS_SECONDS;
  await services.table.put(progressKey(context, id), toItem(progress), { expiresAtSeconds });
}

/** The job if it is this proxy's; a job of another proxy is as absent as a foreign tenant's. */
export async function jobOfProxy(
  services: Services,
  context: TenantContext & { readonly proxy: Id<'proxy'> },
  id: Id<'job'>,
): Promise<Versioned<JobRecord>> {
  const found = await stores(services.table).jobs.find(context, id);
  if (found?.value.proxy !== context.proxy) throw new HoldfastError('not-found', `There is no job ${id}`);
  return found;
}

async function shown(services: Services, context: TenantContext, job: JobRecord): Promise<Job> {
  const { taskToken: _token, outcome: _outcome, error: _error, committedPoint: _point, ...wire } = job;
  const item = isFinal(job.state) ? undefined : await services.table.get(progressKey(context, job.id));
  const progress = item && progressSchema.safeParse(item.value).data;
  return { ...wire, ...(progress === undefined ? {} : { progress }) };
}
