import { z } from 'zod';
import { idSchema } from '#contract/ids.ts';
import { jobSchema, outcomeSchema, runSchema } from '#contract/jobs.ts';
import { pointSchema } from '#contract/points.ts';
import { policySchema } from '#contract/policies.ts';
import { errorReportSchema } from '#contract/problem.ts';
import { proxySchema } from '#contract/proxies.ts';
import { machineSchema, sourceSchema } from '#contract/sources.ts';
import type { Table } from '#ports/table.ts';
import { records } from './records.ts';

/** A job as stored: what the API shows and what only the control plane knows. */
export const jobRecord = jobSchema.omit({ progress: true }).extend({
  /** The workflow's token for the attempt under way. Never leaves the control plane. */
  taskToken: z.string().optional(),
  /** What the proxy reported last. */
  outcome: outcomeSchema.optional(),
  error: errorReportSchema.optional(),
  /** Set by the transaction that made the point exist, so that job and vault can never disagree. */
  committedPoint: idSchema('point').optional(),
});
export type JobRecord = z.infer<typeof jobRecord>;

const proxyRecord = proxySchema.omit({ online: true });
export type ProxyRecord = z.infer<typeof proxyRecord>;

/** Every kind of record; see docs/decisions/0008 for the keys. */
export function stores(table: Table) {
  return {
    proxies: records(table, 'proxies', 'proxy', proxyRecord),
    sources: records(table, 'sources', 'source', sourceSchema),
    machines: records(table, 'machines', 'machine', machineSchema),
    policies: records(table, 'policies', 'policy', policySchema),
    runs: records(table, 'runs', 'run', runSchema),
    jobs: records(table, 'jobs', 'job', jobRecord),
    points: records(table, 'points', 'point', pointSchema),
    /** The same points under `<machine>/<point>`. */
    machinePoints: records(table, 'machine-points', 'point', pointSchema),
    /** Under the machine's id: the backup that is under way, so that there is never a second. */
    activeBackups: records(table, 'active-backups', 'backup', z.object({ job: idSchema('job') })),
    /** Under the proxy's id: the jobs that hold its slots. */
    slots: records(table, 'slots', 'slots', z.object({ holders: z.array(z.string()).max(1000) })),
  };
}
export type Stores = ReturnType<typeof stores>;
