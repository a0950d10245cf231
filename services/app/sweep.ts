import { z } from 'zod';
import { idSchema } from '#contract/ids.ts';
import { isFinal } from '#domain/job.ts';
import { settleJob } from './job-steps.ts';
import { OPEN_JOBS, startJob } from './jobs.ts';
import { startDueRuns } from './policies.ts';
import { expandOpenRuns } from './runs.ts';
import type { Services } from './services.ts';
import { stores } from './stores.ts';

const openJob = z.object({ tenant: idSchema('tenant'), job: idSchema('job') });

/**
 * What happens every minute: runs that are due begin, runs that a crash cut short get their jobs, and each open
 * job is compared with its workflow, so that none is forgotten. May run twice at once.
 */
export async function tick(services: Services, signal: AbortSignal): Promise<void> {
  await startDueRuns(services);
  await expandOpenRuns(services);
  let cursor: string | undefined;
  do {
    const page = await services.table.query(OPEN_JOBS, { limit: 100, ...(cursor === undefined ? {} : { cursor }) });
    for (const item of page.items) {
      if (signal.aborted) return;
      const { tenant, job } = openJob.parse(item.value);
      await reconcile(services, { tenant, job }).catch((error: unknown) => {
        services.log({ level: 'error', event: 'sweep-failed', data: { job, error: String(error) } });
      });
    }
    cursor = page.next;
  } while (cursor !== undefined);
}

async function reconcile(services: Services, input: z.infer<typeof openJob>): Promise<void> {
  const job = (await stores(services.table).jobs.find(input, input.job))?.value;
  if (job === undefined || isFinal(job.state)) return;
  const workflow = await services.workflows.describe(input.job);
  // Made, but the crash came before its start.
  if (workflow === undefined) return startJob(services, input, input.job, job.work);
  if (workflow.status === 'running') return;
  // Its workflow ended without settling it: only a fault of ours, but no job may stay open for ever.
  const caught = 'error' in workflow ? { Error: workflow.error, Cause: workflow.cause } : undefined;
  await settleJob(services, input, caught);
}
