import { z } from 'zod';
import { idSchema } from './ids.ts';
import { errorReportSchema } from './problem.ts';
import { restoreTarget } from './targets.ts';
import { timeSchema } from './time.ts';

const bytes = z.number().int().nonnegative();

/** How far a job is; the same facts as the engine's Progress. */
export const progressSchema = z
  .object({
    phase: z.enum(['preparing', 'reading', 'uploading', 'committing', 'restoring', 'verifying', 'done']),
    doneBytes: bytes,
    totalBytes: bytes,
    transferredBytes: bytes,
    bytesPerSecond: z.number().nonnegative(),
    secondsLeft: z.number().nonnegative().nullable(),
    bottleneck: z.enum(['read', 'hash', 'compress', 'seal', 'check', 'upload', 'fetch', 'open', 'write']).nullable(),
  })
  .meta({ id: 'Progress' });
export type WireProgress = z.infer<typeof progressSchema>;

/** What a backup came to; the engine's stats. */
export const backupOutcome = z.object({
  kind: z.literal('backup'),
  point: idSchema('point'),
  pointKind: z.enum(['full', 'incremental']).optional(),
  disks: z.array(z.object({ name: z.string(), sizeBytes: bytes, kind: z.string(), why: z.string() })).max(64),
  stats: z.record(z.string(), z.unknown()),
});

/** What a restore came to. */
export const restoreOutcome = z.object({
  kind: z.literal('restore'),
  point: idSchema('point'),
  diskIndex: z.number().int().nonnegative(),
  sizeBytes: bytes,
  stats: z.record(z.string(), z.unknown()),
});

export const outcomeSchema = z.discriminatedUnion('kind', [backupOutcome, restoreOutcome]);
export type Outcome = z.infer<typeof outcomeSchema>;

/** Where a job is in its life. The last four are final: a job in one of them never changes again. */
export const jobStateSchema = z
  .discriminatedUnion('status', [
    z.object({ status: z.literal('waiting'), why: z.string().optional() }),
    z.object({ status: z.literal('dispatched'), attempt: z.number().int() }),
    z.object({ status: z.literal('running'), attempt: z.number().int(), startedAt: timeSchema }),
    z.object({ status: z.literal('succeeded'), endedAt: timeSchema, outcome: outcomeSchema }),
    z.object({ status: z.literal('failed'), endedAt: timeSchema, error: errorReportSchema }),
    z.object({ status: z.literal('cancelled'), endedAt: timeSchema }),
    z.object({ status: z.literal('skipped'), endedAt: timeSchema, why: z.string() }),
  ])
  .meta({ id: 'JobState' });
export type JobState = z.infer<typeof jobStateSchema>;

/** What a job does, in the ids and paths that it needs. */
export const jobWork = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('backup'), machine: idSchema('machine') }),
  z.object({
    kind: z.literal('restore'),
    machine: idSchema('machine'),
    point: idSchema('point'),
    diskIndex: z.number().int().nonnegative(),
    target: restoreTarget,
    rollback: z.boolean(),
  }),
]);
export type JobWork = z.infer<typeof jobWork>;

export const jobSchema = z
  .object({
    id: idSchema('job'),
    run: idSchema('run').optional(),
    proxy: idSchema('proxy'),
    work: jobWork,
    state: jobStateSchema,
    createdAt: timeSchema,
    cancelRequested: z.boolean(),
    progress: progressSchema.optional(),
  })
  .meta({ id: 'Job' });
export type Job = z.infer<typeof jobSchema>;

/** Starts a run now: of a policy, or of the machines named. */
export const createRun = z
  .union([
    z.object({ policy: idSchema('policy') }).strict(),
    z.object({ machines: z.array(idSchema('machine')).min(1).max(500) }).strict(),
  ])
  .meta({ id: 'CreateRun' });
export type CreateRun = z.infer<typeof createRun>;

/** One firing of a policy, or one request by hand: a job for each machine. */
export const runSchema = z
  .object({
    id: idSchema('run'),
    policy: idSchema('policy').optional(),
    trigger: z.enum(['schedule', 'manual']),
    dueAt: timeSchema.optional(),
    createdAt: timeSchema,
    jobs: z.array(z.object({ id: idSchema('job'), machine: idSchema('machine') })),
  })
  .meta({ id: 'Run' });
export type Run = z.infer<typeof runSchema>;
