import { z } from 'zod';
import { pathSchema } from './sources.ts';

/** A file or block device on the proxy; `qcow2` makes a new image file. */
export const restoreTarget = z.object({ path: pathSchema, format: z.enum(['raw', 'qcow2']).default('raw') });
