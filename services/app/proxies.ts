import { createPublicKey, verify } from 'node:crypto';
import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { type Id, idSchema } from '#contract/ids.ts';
import type { Page, PageQuery } from '#contract/page.ts';
import type { ActivationToken, EdgeProxy } from '#contract/proxies.ts';
import { type EnrolRequest, enrolmentText } from '#contract/proxy-protocol.ts';
import { isoTime, msOfTime } from '#contract/time.ts';
import { freshIds, type Ids, type TenantContext } from './context.ts';
import { changing, toItem } from './records.ts';
import { makeBearer, parseBearer, secretMatches } from './secrets.ts';
import type { Services } from './services.ts';
import { type ProxyRecord, stores } from './stores.ts';

const PREFIX = 'hfa';
const tokenKey = (id: string) => ({ partition: 'auth#activation', sort: id });
/** Tenant and key of each proxy, found by its id alone: what a bare assertion names. */
const proxyKey = (id: string) => ({ partition: 'auth#proxies', sort: id });

const tokenRecord = z.object({
  tenant: idSchema('tenant'),
  hash: z.string(),
  expiresAtMs: z.number(),
  usedBy: z.object({ proxy: idSchema('proxy'), publicKey: z.string(), sealKey: z.string() }).optional(),
});

const proxyIdentity = z.object({ tenant: idSchema('tenant'), publicKey: z.string() });

/** Makes a token that lets one new proxy enrol; only its hash is stored. */
export async function createActivationToken(
  services: Services,
  context: TenantContext,
  ids: Ids,
  ttlSeconds: number,
): Promise<ActivationToken> {
  const id = ids.make('token');
  const bearer = makeBearer(PREFIX, id, services.random);
  const expiresAtMs = services.clock.nowMs() + ttlSeconds * 1000;
  await services.table.put(tokenKey(id), toItem({ tenant: context.tenant, hash: bearer.hash, expiresAtMs }), {
    // Kept a day longer than it is valid, so that a late try is told that it expired.
    expiresAtSeconds: Math.ceil(expiresAtMs / 1000) + 86_400,
  });
  return { id, token: bearer.text, expiresAt: isoTime(expiresAtMs) };
}

/**
 * Registers a proxy's keys against an activation token. The token serves one key pair: the same proxy asking
 * again (its first answer was lost) hears the same, anybody else `unauthorized`.
 */
export async function enrolProxy(
  services: Services,
  request: EnrolRequest,
): Promise<{ proxy: Id<'proxy'>; tenant: Id<'tenant'> }> {
  const parsed = parseBearer(PREFIX, request.activationToken);
  checkProof(request);
  return changing(async () => {
    const item = parsed && (await services.table.get(tokenKey(parsed.id)));
    const token = item && tokenRecord.parse(item.value);
    if (
      parsed === undefined ||
      item === undefined ||
      token === undefined ||
      !secretMatches(parsed.secret, token.hash)
    ) {
      throw refused('The activation token is not valid');
    }
    const { usedBy, tenant } = token;
    if (usedBy !== undefined) {
      if (usedBy.publicKey === request.publicKey && usedBy.sealKey === request.sealKey)
        return { proxy: usedBy.proxy, tenant };
      throw refused('The activation token was used already');
    }
    const now = services.clock.nowMs();
    if (now >= token.expiresAtMs) throw refused(`The activation token expired at ${isoTime(token.expiresAtMs)}`);
    const id = freshIds(services.clock, services.random).make('proxy');
    const { publicKey, sealKey } = request;
    const record: ProxyRecord = {
      id,
      name: request.name,
      version: request.version,
      platform: request.platform,
      publicKey,
      sealKey,
      createdAt: isoTime(now),
      lastSeenAt: isoTime(now),
    };
    await services.table.transact([
      {
        put: tokenKey(parsed.id),
        value: toItem({ ...token, usedBy: { proxy: id, publicKey, sealKey } }),
        ifVersion: item.version,
        expiresAtSeconds: Math.ceil(token.expiresAtMs / 1000) + 86_400,
      },
      stores(services.table).proxies.insert({ tenant }, id, record),
      { put: proxyKey(id), value: toItem({ tenant, publicKey }), ifAbsent: true },
    ]);
    return { proxy: id, tenant };
  });
}

/** Tenant and public key (Ed25519, base64url) of a proxy, or `undefined`. */
export async function proxyIdentityOf(services: Services, proxy: string) {
  const item = await services.table.get(proxyKey(proxy));
  return item && proxyIdentity.parse(item.value);
}

/** Notes a sign of life. */
export async function noteHeartbeat(
  services: Services,
  context: TenantContext,
  proxy: Id<'proxy'>,
  version: string,
): Promise<void> {
  const { proxies } = stores(services.table);
  await changing(async () => {
    const found = await proxies.get(context, proxy);
    const value = { ...found.value, version, lastSeenAt: isoTime(services.clock.nowMs()) };
    await services.table.transact([proxies.replace(context, proxy, value, found.version)]);
  });
}

export async function getProxy(services: Services, context: TenantContext, id: Id<'proxy'>): Promise<EdgeProxy> {
  return shown(services, (await stores(services.table).proxies.get(context, id)).value);
}

export async function listProxies(
  services: Services,
  context: TenantContext,
  query: PageQuery,
): Promise<Page<EdgeProxy>> {
  const page = await stores(services.table).proxies.list(context, query);
  return { ...page, items: page.items.map((proxy) => shown(services, proxy)) };
}

function shown(services: Services, proxy: ProxyRecord): EdgeProxy {
  const silentMs = services.clock.nowMs() - msOfTime(proxy.lastSeenAt ?? proxy.createdAt);
  return { ...proxy, online: silentMs <= services.settings.proxyOnlineSeconds * 1000 };
}

function checkProof(request: EnrolRequest): void {
  const text = enrolmentText(request.publicKey, request.sealKey, request.activationToken);
  const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: request.publicKey }, format: 'jwk' });
  if (!verify(null, Buffer.from(text), key, Buffer.from(request.proof, 'base64url'))) {
    throw refused('The proof does not show that the caller holds the private key');
  }
}

function refused(message: string): HoldfastError {
  return new HoldfastError('unauthorized', message, {
    remedy: 'Make a new activation token and enrol with it',
  });
}
