import { z } from 'zod';
import { idSchema } from '#contract/ids.ts';
import * as protocol from '#contract/proxy-protocol.ts';
import { isoTime } from '#contract/time.ts';
import { type Operation, operation } from './operation.ts';
import { enrolProxy, noteHeartbeat } from './proxies.ts';
import { noteInventory } from './proxy-inventory.ts';
import { ackTask, completeTask, failTask, heartbeatTask, receiveTasks } from './proxy-tasks.ts';
import { issueAccessToken } from './proxy-tokens.ts';
import { downloadGrants, headObjects, listObjects, sealedVault, uploadGrants, vaultStateOf } from './proxy-vault.ts';
import type { Services } from './services.ts';

const audience = 'proxy';
const empty = z.object({});
const ofJob = z.object({ job: idSchema('job') });
const ofSession = ofJob.extend({ session: idSchema('session') });
const job = '/v1/proxy/jobs/{job}';

/** What an edge proxy can do: everything about its own jobs, nothing else. */
export function proxyOperations(services: Services): Operation[] {
  const serverTime = () => isoTime(services.clock.nowMs());
  const post = { audience, method: 'post', status: 200 } as const;
  const get = { audience, method: 'get', status: 200 } as const;
  return [
    operation({
      audience: 'public',
      method: 'post',
      status: 200,
      id: 'enrolProxy',
      path: '/v1/proxy/enrol',
      summary: 'Register a new proxy’s keys against an activation token',
      body: protocol.enrolRequest,
      response: protocol.enrolResponse,
      handle: async ({ body }) => ({ ...(await enrolProxy(services, body)), serverTime: serverTime() }),
    }),
    operation({
      audience: 'public',
      method: 'post',
      status: 200,
      id: 'issueAccessToken',
      path: '/v1/proxy/token',
      summary: 'Exchange a signed assertion for a short access token',
      body: protocol.tokenRequest,
      response: protocol.tokenResponse,
      handle: async ({ body }) => ({ ...(await issueAccessToken(services, body.assertion)), serverTime: serverTime() }),
    }),
    operation({
      ...post,
      id: 'proxyHeartbeat',
      path: '/v1/proxy/heartbeat',
      summary: 'Say that the proxy lives',
      body: protocol.heartbeatRequest,
      response: protocol.heartbeatResponse,
      handle: async ({ caller, body }) => {
        await noteHeartbeat(services, caller, caller.proxy, body.version);
        return { serverTime: serverTime() };
      },
    }),
    operation({
      ...post,
      id: 'receiveTasks',
      path: '/v1/proxy/tasks/receive',
      summary: 'Wait for tasks',
      body: protocol.receiveRequest,
      response: protocol.receiveResponse,
      handle: async ({ caller, body, signal }) => ({ tasks: await receiveTasks(services, caller, body, signal) }),
    }),
    operation({
      ...post,
      id: 'ackTask',
      path: '/v1/proxy/tasks/ack',
      summary: 'Take a task off the queue for good',
      body: protocol.ackRequest,
      response: empty,
      handle: async ({ caller, body }) => {
        await ackTask(services, caller, body.receipt);
        return {};
      },
    }),
    operation({
      ...post,
      id: 'heartbeatJob',
      path: `${job}/progress`,
      summary: 'Say how far a job is; its heartbeat',
      params: ofJob,
      body: protocol.progressRequest,
      response: protocol.progressResponse,
      handle: ({ caller, params, body }) => heartbeatTask(services, caller, params.job, body.progress),
    }),
    operation({
      ...post,
      id: 'completeJob',
      path: `${job}/complete`,
      summary: 'Report that a job is done',
      params: ofJob,
      body: protocol.completeRequest,
      response: empty,
      handle: async ({ caller, params, body }) => {
        await completeTask(services, caller, params.job, body.outcome);
        return {};
      },
    }),
    operation({
      ...post,
      id: 'failJob',
      path: `${job}/fail`,
      summary: 'Report that a job failed, and why',
      params: ofJob,
      body: protocol.failRequest,
      response: empty,
      handle: async ({ caller, params, body }) => {
        await failTask(services, caller, params.job, body.error);
        return {};
      },
    }),
    operation({
      ...get,
      id: 'getVault',
      path: `${job}/vault`,
      summary: 'The vault’s keys, sealed to the proxy',
      params: ofJob,
      response: protocol.vaultResponse,
      handle: ({ caller, params }) => sealedVault(services, caller, params.job),
    }),
    operation({
      ...get,
      id: 'getGeneration',
      path: `${job}/generation`,
      summary: 'The live index segments',
      params: ofJob,
      response: protocol.generationSchema,
      handle: async ({ caller, params }) => {
        const { number, segments } = await (await vaultStateOf(services, caller, params.job)).generation();
        return { number, segments: [...segments] };
      },
    }),
    operation({
      ...post,
      id: 'openSession',
      path: `${job}/sessions`,
      summary: 'Open a writer’s session on a machine',
      params: ofJob,
      body: protocol.openSessionRequest,
      response: protocol.sessionSchema,
      handle: async ({ caller, params, body }) => {
        const session = await (await vaultStateOf(services, caller, params.job, body.machine)).openSession(
          body.machine,
          body.holder,
        );
        return { ...session, generation: { ...session.generation, segments: [...session.generation.segments] } };
      },
    }),
    operation({
      ...post,
      id: 'renewSession',
      path: `${job}/sessions/{session}/renew`,
      summary: 'Extend a session’s lease',
      params: ofSession,
      body: protocol.sessionRef,
      response: empty,
      handle: async ({ caller, params, body }) => {
        await (await vaultStateOf(services, caller, params.job, body.machine)).renew(named(params.session, body));
        return {};
      },
    }),
    operation({
      ...post,
      id: 'commitSession',
      path: `${job}/sessions/{session}/commit`,
      summary: 'Make a point exist',
      params: ofSession,
      body: protocol.commitRequest,
      response: empty,
      handle: async ({ caller, params, body }) => {
        const state = await vaultStateOf(services, caller, params.job, body.machine);
        const { segments, pointKey, point } = body;
        await state.commit(named(params.session, body), { segments, pointKey, point: Buffer.from(point, 'base64') });
        return {};
      },
    }),
    operation({
      ...post,
      id: 'abandonSession',
      path: `${job}/sessions/{session}/abandon`,
      summary: 'End a session without a point',
      params: ofSession,
      body: protocol.sessionRef,
      response: empty,
      handle: async ({ caller, params, body }) => {
        await (await vaultStateOf(services, caller, params.job, body.machine)).abandon(named(params.session, body));
        return {};
      },
    }),
    operation({
      ...post,
      id: 'grantUploads',
      path: `${job}/grants/uploads`,
      summary: 'URLs to add objects',
      params: ofJob,
      body: protocol.uploadGrantsRequest,
      response: protocol.grantsResponse,
      handle: async ({ caller, params, body }) => ({
        grants: await uploadGrants(services, caller, params.job, body.objects),
      }),
    }),
    operation({
      ...post,
      id: 'grantDownloads',
      path: `${job}/grants/downloads`,
      summary: 'URLs to read objects',
      params: ofJob,
      body: protocol.downloadGrantsRequest,
      response: protocol.grantsResponse,
      handle: async ({ caller, params, body }) => ({
        grants: await downloadGrants(services, caller, params.job, body.keys),
      }),
    }),
    operation({
      ...post,
      id: 'headObjects',
      path: `${job}/objects/head`,
      summary: 'Sizes of objects',
      params: ofJob,
      body: protocol.headRequest,
      response: protocol.headResponse,
      handle: async ({ caller, params, body }) => ({
        objects: await headObjects(services, caller, params.job, body.keys),
      }),
    }),
    operation({
      ...get,
      id: 'listObjects',
      path: `${job}/objects`,
      summary: 'Objects of the vault by prefix',
      params: ofJob,
      query: protocol.listQuery,
      response: protocol.listResponse,
      handle: ({ caller, params, query }) => listObjects(services, caller, params.job, query),
    }),
    operation({
      ...post,
      id: 'putInventory',
      path: '/v1/proxy/sources/{source}/inventory',
      summary: 'Report what a source offers',
      params: z.object({ source: idSchema('source') }),
      body: protocol.inventoryRequest,
      response: empty,
      handle: async ({ caller, params, body }) => {
        await noteInventory(services, caller, params.source, body.machines);
        return {};
      },
    }),
  ];
}

/** The parts of a session that identify it; the rest is the control plane's own knowledge. */
function named(id: z.infer<typeof protocol.sessionSchema>['id'], ref: z.infer<typeof protocol.sessionRef>) {
  return { id, machine: ref.machine, token: ref.token, startEpoch: 0, generation: { number: 0, segments: [] } };
}
