import { z } from 'zod';
import { idSchema } from './ids.ts';
import { MACHINE_MAX_DISKS } from './limits.ts';
import { nameSchema } from './tenants.ts';
import { timeSchema } from './time.ts';

/** A connection through which a proxy reaches machines. Kind `image`: disk files and devices on the proxy itself. */
export const createSource = z
  .object({ kind: z.literal('image'), name: nameSchema, proxy: idSchema('proxy') })
  .meta({ id: 'CreateSource' });

export const sourceSchema = createSource
  .extend({ id: idSchema('source'), createdAt: timeSchema })
  .meta({ id: 'Source' });
export type Source = z.infer<typeof sourceSchema>;

/** An absolute path on the proxy. */
export const pathSchema = z
  .string()
  .min(1)
  .max(4096)
  .startsWith('/', 'must be an absolute path')
  .refine((path) => !path.includes('\0'), 'must not contain a zero byte');

/** A disk of a machine: a raw file, a sparse file, a block device, or a qcow2, vmdk, vhdx or vdi image. */
export const machineDisk = z.object({ name: nameSchema, path: pathSchema });

export const createMachine = z
  .object({
    name: nameSchema,
    source: idSchema('source'),
    disks: z.array(machineDisk).min(1).max(MACHINE_MAX_DISKS),
  })
  .meta({ id: 'CreateMachine' });

export const machineSchema = createMachine
  .extend({ id: idSchema('machine'), createdAt: timeSchema })
  .meta({ id: 'Machine' });
export type Machine = z.infer<typeof machineSchema>;
