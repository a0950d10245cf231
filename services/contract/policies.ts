import { z } from 'zod';
import { idSchema } from './ids.ts';
import { nameSchema } from './tenants.ts';
import { isTimeZone, timeSchema } from './time.ts';

/** An IANA time zone, such as `Asia/Seoul`. */
export const timeZoneSchema = z.string().max(64).refine(isTimeZone, 'must be an IANA time zone, such as Asia/Seoul');

/** When a policy fires: every so many minutes from its creation, or by cron (five fields) in a time zone. */
export const scheduleSchema = z
  .discriminatedUnion('kind', [
    z.object({ kind: z.literal('interval'), minutes: z.number().int().min(1).max(44_640) }),
    z.object({ kind: z.literal('cron'), expression: z.string().min(9).max(200), timeZone: timeZoneSchema }),
  ])
  .meta({ id: 'Schedule' });
export type Schedule = z.infer<typeof scheduleSchema>;

/** Machines a policy may name; more need selection rules. */
export const POLICY_MAX_MACHINES = 500;

export const createPolicy = z
  .object({
    name: nameSchema,
    schedule: scheduleSchema,
    machines: z.array(idSchema('machine')).min(1).max(POLICY_MAX_MACHINES),
    enabled: z.boolean().default(true),
  })
  .meta({ id: 'CreatePolicy' });

export const policySchema = createPolicy
  .extend({ id: idSchema('policy'), enabled: z.boolean(), createdAt: timeSchema, nextRunAt: timeSchema.optional() })
  .meta({ id: 'Policy' });
export type Policy = z.infer<typeof policySchema>;
