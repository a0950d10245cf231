import { z } from 'zod';
import { idSchema } from './ids.ts';
import { restoreTarget } from './targets.ts';
import { timeSchema } from './time.ts';

/** A committed restore point. */
export const pointSchema = z
  .object({
    id: idSchema('point'),
    machine: idSchema('machine'),
    vault: idSchema('vault'),
    job: idSchema('job'),
    /** When the source's snapshot was taken. */
    createdAt: timeSchema,
    /** The signed object's key in the vault. */
    key: z.string(),
    objectBytes: z.number().int().nonnegative(),
    disks: z.array(z.object({ sizeBytes: z.number().int().nonnegative() })),
  })
  .meta({ id: 'Point' });
export type Point = z.infer<typeof pointSchema>;

/** Restores one disk of a point to a file or block device on the proxy; `latest` is the machine's newest point. */
export const createRestore = z
  .object({
    machine: idSchema('machine'),
    point: z.union([idSchema('point'), z.literal('latest')]).default('latest'),
    diskIndex: z.number().int().min(0).max(63).default(0),
    target: restoreTarget,
    /** Write only blocks that differ from what the target holds. */
    rollback: z.boolean().default(false),
    /** The proxy that writes; by default the one that backs the machine up. */
    proxy: idSchema('proxy').optional(),
  })
  .meta({ id: 'CreateRestore' });
