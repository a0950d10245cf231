import { createHash } from 'node:crypto';
import { z } from 'zod';
import { type Id, idSchema, makeId } from '#contract/ids.ts';
import type { createPolicy, Policy } from '#contract/policies.ts';
import { isoTime, msOfTime } from '#contract/time.ts';
import { checkSchedule, nextDue } from '#domain/schedule.ts';
import type { TableAction, TableItem } from '#ports/table.ts';
import type { Ids, TenantContext } from './context.ts';
import { changing, toItem, unlessThere } from './records.ts';
import { expandRun, insertRun, newRun } from './runs.ts';
import type { Services } from './services.ts';
import { stores } from './stores.ts';

/** Every enabled policy under the time of its next run: what a tick reads. */
const DUE = 'due#policies';
/** Due policies started by one tick; the rest follow at the next. */
const TICK_MAX = 100;
const dueItem = z.object({ tenant: idSchema('tenant'), policy: idSchema('policy') });

/** Makes a policy; throws `not-found` for a machine, `usage` for a schedule that never comes due. */
export async function addPolicy(
  services: Services,
  context: TenantContext,
  ids: Ids,
  input: z.output<typeof createPolicy>,
): Promise<Policy> {
  const { machines, policies } = stores(services.table);
  checkSchedule(input.schedule);
  for (const machine of input.machines) await machines.get(context, machine);
  const now = services.clock.nowMs();
  const due = input.enabled ? nextDue(input.schedule, now, now) : undefined;
  const policy: Policy = {
    ...input,
    machines: [...new Set(input.machines)],
    id: ids.make('policy'),
    createdAt: isoTime(now),
    ...(due === undefined ? {} : { nextRunAt: isoTime(due) }),
  };
  return policies.create(context, policy.id, policy, due === undefined ? [] : [insertDue(context, policy.id, due)]);
}

/** Removes a policy; its points stay. */
export async function removePolicy(services: Services, context: TenantContext, id: Id<'policy'>): Promise<void> {
  const { policies } = stores(services.table);
  await changing(async () => {
    const { value, version } = await policies.get(context, id);
    await services.table.transact([
      policies.remove(context, id, version),
      ...(value.nextRunAt === undefined ? [] : [{ delete: dueKey(id, msOfTime(value.nextRunAt)) }]),
    ]);
  });
}

/**
 * Starts a run of every policy that is due. Moving the policy to its next time and making the run are one
 * transaction, so two ticks at once, or a tick after a crash, never start a run twice. After a long stop a
 * policy runs once, not once for each time it missed.
 */
export async function startDueRuns(services: Services): Promise<void> {
  const now = services.clock.nowMs();
  const page = await services.table.query(DUE, { before: sortOf(now + 1, ''), limit: TICK_MAX });
  for (const item of page.items) await startDue(services, item, now);
}

async function startDue(services: Services, item: TableItem, now: number): Promise<void> {
  const { tenant, policy: id } = dueItem.parse(item.value);
  const context = { tenant };
  const { policies } = stores(services.table);
  const found = await policies.find(context, id);
  const dueAtMs = Number(item.key.sort.slice(0, 13));
  if (found?.value.nextRunAt === undefined || msOfTime(found.value.nextRunAt) !== dueAtMs) {
    await services.table.delete(item.key);
    return;
  }
  const policy = found.value;
  const next = nextDue(policy.schedule, msOfTime(policy.createdAt), now);
  const { nextRunAt: _old, ...rest } = policy;
  const runId = makeId('run', now, createHash('sha256').update(item.key.sort).digest());
  const run = newRun(runId, policy.machines, {
    trigger: 'schedule',
    createdAt: isoTime(now),
    policy: id,
    dueAt: isoTime(dueAtMs),
  });
  const moved = { ...rest, ...(next === undefined ? {} : { nextRunAt: isoTime(next) }) };
  const first = await unlessThere(
    services.table.transact([
      { delete: item.key, ifVersion: item.version },
      ...(next === undefined ? [] : [insertDue(context, id, next)]),
      policies.replace(context, id, moved, found.version),
      ...insertRun(services, context, run),
    ]),
  );
  if (first) await expandRun(services, context, run.id);
}

function insertDue(context: TenantContext, policy: string, dueMs: number): TableAction {
  return { put: dueKey(policy, dueMs), value: toItem({ tenant: context.tenant, policy }), ifAbsent: true };
}

function dueKey(policy: string, dueMs: number) {
  return { partition: DUE, sort: sortOf(dueMs, policy) };
}

function sortOf(dueMs: number, policy: string): string {
  return `${String(dueMs).padStart(13, '0')}/${policy}`;
}
