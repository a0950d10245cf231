import { z } from 'zod';
import { idSchema } from '#contract/ids.ts';
import { createRun, jobSchema, runSchema } from '#contract/jobs.ts';
import { API_WAIT_MAX_SECONDS } from '#contract/limits.ts';
import { pageQuery, pageSchema } from '#contract/page.ts';
import { createRestore, pointSchema } from '#contract/points.ts';
import { createPolicy, policySchema } from '#contract/policies.ts';
import { activationTokenSchema, createActivationToken, proxySchema } from '#contract/proxies.ts';
import { createMachine, createSource, machineSchema, sourceSchema } from '#contract/sources.ts';
import { tenantSchema } from '#contract/tenants.ts';
import { addMachine, addSource } from './inventory.ts';
import { awaitJob, cancelJob, listJobs } from './jobs.ts';
import { answer, type Operation, operation } from './operation.ts';
import { addPolicy, removePolicy } from './policies.ts';
import { getProxy, listProxies, createActivationToken as makeActivationToken } from './proxies.ts';
import { createRestoreJob, listPoints } from './restores.ts';
import { createRun as startRun } from './runs.ts';
import type { Services } from './services.ts';
import { stores } from './stores.ts';
import { getTenant } from './tenants.ts';

const audience = 'tenant';

/** What people and programs with an API key can do. */
export function tenantOperations(services: Services): Operation[] {
  const { sources, machines, policies, runs, points } = stores(services.table);
  const list = { audience, method: 'get', status: 200, query: pageQuery } as const;
  const get = { audience, method: 'get', status: 200 } as const;
  const create = { audience, method: 'post', status: 201 } as const;
  return [
    operation({
      ...get,
      id: 'getTenant',
      path: '/v1/tenant',
      summary: 'The tenant that the API key belongs to',
      response: tenantSchema,
      handle: ({ caller }) => getTenant(services, caller),
    }),
    operation({
      ...create,
      id: 'createActivationToken',
      path: '/v1/activation-tokens',
      summary: 'Make a token with which one new proxy enrols',
      body: createActivationToken,
      response: activationTokenSchema,
      handle: ({ caller, ids, body }) => makeActivationToken(services, caller, ids, body.ttlSeconds),
    }),
    operation({
      ...list,
      id: 'listProxies',
      path: '/v1/proxies',
      summary: 'Proxies',
      response: pageSchema(proxySchema),
      handle: ({ caller, query }) => listProxies(services, caller, query),
    }),
    operation({
      ...get,
      id: 'getProxy',
      path: '/v1/proxies/{proxy}',
      summary: 'One proxy',
      params: z.object({ proxy: idSchema('proxy') }),
      response: proxySchema,
      handle: ({ caller, params }) => getProxy(services, caller, params.proxy),
    }),
    operation({
      ...create,
      id: 'createSource',
      path: '/v1/sources',
      summary: 'Add a source of machines',
      body: createSource,
      response: sourceSchema,
      handle: ({ caller, ids, body }) => addSource(services, caller, ids, body),
    }),
    operation({
      ...list,
      id: 'listSources',
      path: '/v1/sources',
      summary: 'Sources',
      response: pageSchema(sourceSchema),
      handle: ({ caller, query }) => sources.list(caller, query),
    }),
    operation({
      ...get,
      id: 'getSource',
      path: '/v1/sources/{source}',
      summary: 'One source',
      params: z.object({ source: idSchema('source') }),
      response: sourceSchema,
      handle: async ({ caller, params }) => (await sources.get(caller, params.source)).value,
    }),
    operation({
      ...create,
      id: 'createMachine',
      path: '/v1/machines',
      summary: 'Add a machine of a source',
      body: createMachine,
      response: machineSchema,
      handle: ({ caller, ids, body }) => addMachine(services, caller, ids, body),
    }),
    operation({
      ...list,
      id: 'listMachines',
      path: '/v1/machines',
      summary: 'Machines',
      response: pageSchema(machineSchema),
      handle: ({ caller, query }) => machines.list(caller, query),
    }),
    operation({
      ...get,
      id: 'getMachine',
      path: '/v1/machines/{machine}',
      summary: 'One machine',
      params: z.object({ machine: idSchema('machine') }),
      response: machineSchema,
      handle: async ({ caller, params }) => (await machines.get(caller, params.machine)).value,
    }),
    operation({
      ...create,
      id: 'createPolicy',
      path: '/v1/policies',
      summary: 'Protect machines on a schedule',
      body: createPolicy,
      response: policySchema,
      handle: ({ caller, ids, body }) => addPolicy(services, caller, ids, body),
    }),
    operation({
      ...list,
      id: 'listPolicies',
      path: '/v1/policies',
      summary: 'Policies',
      response: pageSchema(policySchema),
      handle: ({ caller, query }) => policies.list(caller, query),
    }),
    operation({
      ...get,
      id: 'getPolicy',
      path: '/v1/policies/{policy}',
      summary: 'One policy',
      params: z.object({ policy: idSchema('policy') }),
      response: policySchema,
      handle: async ({ caller, params }) => (await policies.get(caller, params.policy)).value,
    }),
    operation({
      audience,
      method: 'delete',
      status: 204,
      id: 'deletePolicy',
      path: '/v1/policies/{policy}',
      summary: 'Remove a policy; its points stay',
      params: z.object({ policy: idSchema('policy') }),
      handle: async ({ caller, params }) => void (await removePolicy(services, caller, params.policy)),
    }),
    operation({
      ...create,
      status: 202,
      id: 'createRun',
      path: '/v1/runs',
      summary: 'Back up now: a policy’s machines, or those named',
      body: createRun,
      response: runSchema,
      handle: async ({ caller, ids, body }) => {
        const run = await startRun(services, caller, ids, body);
        return answer(run, { location: `/v1/runs/${run.id}` });
      },
    }),
    operation({
      ...list,
      id: 'listRuns',
      path: '/v1/runs',
      summary: 'Runs, newest first',
      response: pageSchema(runSchema),
      handle: ({ caller, query }) => runs.list(caller, query, { newestFirst: true }),
    }),
    operation({
      ...get,
      id: 'getRun',
      path: '/v1/runs/{run}',
      summary: 'One run',
      params: z.object({ run: idSchema('run') }),
      response: runSchema,
      handle: async ({ caller, params }) => (await runs.get(caller, params.run)).value,
    }),
    operation({
      ...list,
      id: 'listJobs',
      path: '/v1/jobs',
      summary: 'Jobs, newest first',
      response: pageSchema(jobSchema),
      handle: ({ caller, query }) => listJobs(services, caller, query),
    }),
    operation({
      ...get,
      id: 'getJob',
      path: '/v1/jobs/{job}',
      summary: 'One job; with `wait`, answered once it has ended or so many seconds later',
      params: z.object({ job: idSchema('job') }),
      query: z.object({ wait: z.coerce.number().min(0).max(API_WAIT_MAX_SECONDS).default(0) }),
      response: jobSchema,
      handle: ({ caller, params, query, signal }) => awaitJob(services, caller, params.job, query.wait, signal),
    }),
    operation({
      ...create,
      status: 202,
      id: 'cancelJob',
      path: '/v1/jobs/{job}/cancel',
      summary: 'Ask a job to stop',
      params: z.object({ job: idSchema('job') }),
      response: jobSchema,
      handle: ({ caller, params }) => cancelJob(services, caller, params.job),
    }),
    operation({
      ...list,
      id: 'listPoints',
      path: '/v1/points',
      summary: 'Restore points, newest first; of one machine if it is named',
      query: pageQuery.extend({ machine: idSchema('machine').optional() }),
      response: pageSchema(pointSchema),
      handle: ({ caller, query }) => listPoints(services, caller, query),
    }),
    operation({
      ...get,
      id: 'getPoint',
      path: '/v1/points/{point}',
      summary: 'One restore point',
      params: z.object({ point: idSchema('point') }),
      response: pointSchema,
      handle: async ({ caller, params }) => (await points.get(caller, params.point)).value,
    }),
    operation({
      ...create,
      status: 202,
      id: 'createRestore',
      path: '/v1/restores',
      summary: 'Restore a disk of a point to a file or device on a proxy',
      body: createRestore,
      response: jobSchema,
      handle: async ({ caller, ids, body }) => {
        const job = await createRestoreJob(services, caller, ids, body);
        return answer(job, { location: `/v1/jobs/${job.id}` });
      },
    }),
  ];
}
