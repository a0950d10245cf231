import { z } from 'zod';
import { idSchema } from './ids.ts';
import { timeSchema } from './time.ts';

/** A customer, or a provider that serves customers. */
export const tenantSchema = z
  .object({
    id: idSchema('tenant'),
    kind: z.enum(['msp', 'customer']),
    name: z.string(),
    vault: idSchema('vault'),
    createdAt: timeSchema,
  })
  .meta({ id: 'Tenant' });
export type Tenant = z.infer<typeof tenantSchema>;

/** What people call a thing: 1 to 200 characters, none of them a control character. */
export const nameSchema = z
  .string()
  .trim()
  .min(1)
  .max(200)
  .regex(/^\P{Cc}*$/u, 'must not contain control characters');
