import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { type IncomingHttpHeaders, request } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { GRANT_MAX_SECONDS } from '#contract/limits.ts';
import type { BlobGrants, Blobs, Grant } from '#ports/blobs.ts';
import type { ManualClock } from './manual-clock.ts';

export interface GrantsFixture {
  readonly grants: BlobGrants;
  /** The store behind them. */
  readonly blobs: Blobs;
  readonly clock?: ManualClock;
  dispose(): Promise<void>;
}

const failsWith = (code: Parameters<typeof isHoldfastError>[1]) => (error: unknown) => isHoldfastError(error, code);
const sha256 = (content: Uint8Array) => createHash('sha256').update(content).digest();

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** Sends a request as a proxy does: the grant's headers, and what the test adds or changes. */
function send(
  url: string,
  method: string,
  headers: Readonly<Record<string, string>>,
  body?: Uint8Array,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }),
      );
    });
    sent.on('error', reject);
    sent.end(body);
  });
}
const put = (grant: Grant, body: Uint8Array, headers: Readonly<Record<string, string>> = {}) =>
  send(grant.url, grant.method, { ...grant.headers, ...headers }, body);
const get = (grant: Grant, headers: Readonly<Record<string, string>> = {}) =>
  send(grant.url, grant.method, { ...grant.headers, ...headers });

/** What every adapter of BlobGrants, and the server its URLs lead to, must do. */
export function grantsConformance(name: string, make: () => Promise<GrantsFixture>): void {
  describe(`${name} keeps the promises of BlobGrants`, () => {
    let fixture: GrantsFixture;
    let grants: BlobGrants;
    before(async () => {
      fixture = await make();
      grants = fixture.grants;
    });
    after(() => fixture.dispose());

    const content = Buffer.from('what was granted, byte for byte');
    const grantFor = (key: string, body: Uint8Array = content) =>
      grants.grantUpload(key, body.length, sha256(body), 60);

    it('lets its holder upload exactly the object it was made for', async () => {
      const grant = await grantFor('v1/é ü%2f+?&#/one');
      assert.equal(grant.method, 'PUT');
      assert.equal((await put(grant, content)).status, 200);
      assert.deepEqual(Buffer.from((await fixture.blobs.get('v1/é ü%2f+?&#/one'))!.content), content);
    });

    it('takes large and empty objects', async () => {
      const large = Buffer.alloc(5_000_001, 'large ');
      assert.equal((await put(await grantFor('large', large), large)).status, 200);
      assert.deepEqual(sha256((await fixture.blobs.get('large'))!.content), sha256(large));
      const empty = new Uint8Array(0);
      assert.equal((await put(await grantFor('empty', empty), empty)).status, 200);
      assert.equal((await fixture.blobs.head('empty'))!.sizeBytes, 0);
      assert.equal((await get(await grants.grantDownload('empty', 60))).body.length, 0);
    });

    it('answers 412 if the key is taken, with the grant used twice or another, and changes nothing', async () => {
      const grant = await grantFor('taken');
      await put(grant, content);
      const again = await put(grant, content);
      assert.equal(again.status, 412);
      assert.match(again.body.toString(), /<Code>PreconditionFailed<\/Code>/);
      const other = Buffer.alloc(3_000_000, 1);
      assert.equal((await put(await grantFor('taken', other), other)).status, 412);
      assert.deepEqual(Buffer.from((await fixture.blobs.get('taken'))!.content), content);
    });

    it('refuses other content of the same length, and leaves nothing', async () => {
      const answer = await put(await grantFor('other'), Buffer.alloc(content.length));
      assert.equal(answer.status, 400);
      assert.match(answer.body.toString(), /BadDigest/);
      assert.equal(await fixture.blobs.head('other'), undefined);
    });

    it('refuses an upload without the signed headers, or with other ones', async () => {
      const grant = await grantFor('headers');
      const without = (name: string) =>
        Object.fromEntries(Object.entries(grant.headers).filter(([key]) => key !== name));
      assert.equal((await send(grant.url, 'PUT', without('if-none-match'), content)).status, 403);
      assert.equal((await send(grant.url, 'PUT', without('x-amz-checksum-sha256'), content)).status, 403);
      const longer = Buffer.concat([content, content]);
      assert.equal((await put(grant, longer, { 'content-length': `${longer.length}` })).status, 403);
      const otherSum = { 'x-amz-checksum-sha256': sha256(longer).toString('base64') };
      assert.equal((await put(grant, content, otherSum)).status, 403);
      assert.equal(await fixture.blobs.head('headers'), undefined);
    });

    it('is good for one key, one method and what was signed only', async () => {
      await fixture.blobs.putIfAbsent('secret', [Buffer.from('secret')]);
      await fixture.blobs.putIfAbsent('mine', [content]);
      const download = await grants.grantDownload('mine', 60);
      assert.equal((await get(download)).status, 200);
      const stolen = new URL(download.url);
      stolen.pathname = stolen.pathname.replace('mine', 'secret');
      assert.equal((await send(stolen.href, 'GET', {})).status, 403);
      assert.equal((await send(download.url, 'PUT', { 'content-length': '1' }, Buffer.from('x'))).status, 403);
      const upload = await grantFor('upload-only');
      assert.equal((await send(upload.url, 'GET', {})).status, 403);
      const bare = new URL(download.url);
      bare.search = '';
      assert.equal((await send(bare.href, 'GET', {})).status, 403);
      const query = new URL(download.url).searchParams;
      for (const name of query.keys()) {
        const changed = new URL(download.url);
        changed.searchParams.set(name, `9${query.get(name)}`);
        assert.equal((await send(changed.href, 'GET', {})).status, 403, name);
      }
    });

    it('downloads whole or by range, as RFC 9110 has it', async () => {
      await fixture.blobs.putIfAbsent('ranged', [Buffer.from('0123456789')]);
      const grant = await grants.grantDownload('ranged', 60);
      const whole = await get(grant);
      assert.deepEqual([whole.status, whole.body.toString()], [200, '0123456789']);
      assert.equal(whole.headers['content-length'], '10');
      const expected: [string, number, string, string | undefined][] = [
        ['bytes=0-0', 206, '0', 'bytes 0-0/10'],
        ['bytes=2-5', 206, '2345', 'bytes 2-5/10'],
        ['bytes=7-', 206, '789', 'bytes 7-9/10'],
        ['bytes=8-100', 206, '89', 'bytes 8-9/10'],
        ['bytes=-3', 206, '789', 'bytes 7-9/10'],
      ];
      for (const [range, status, body, contentRange] of expected) {
        const answer = await get(grant, { range });
        assert.deepEqual(
          [answer.status, answer.body.toString(), answer.headers['content-range']],
          [status, body, contentRange],
          range,
        );
      }
      const beyond = await get(grant, { range: 'bytes=10-12' });
      assert.equal(beyond.status, 416);
      assert.match(beyond.body.toString(), /InvalidRange/);
    });

    it('answers 404 for an object that does not exist', async () => {
      const answer = await get(await grants.grantDownload('absent', 60));
      assert.equal(answer.status, 404);
      assert.match(answer.body.toString(), /NoSuchKey/);
    });

    it('ends at its time', async (t) => {
      const { clock } = fixture;
      if (clock === undefined) return t.skip('the store judges by its own time');
      await fixture.blobs.putIfAbsent('timed', [content]);
      const grant = await grants.grantDownload('timed', 60);
      assert.equal(grant.expiresAtMs, clock.nowMs() + 60_000);
      const upload = await grantFor('timed-upload');
      clock.advance(59_999);
      assert.equal((await get(grant)).status, 200);
      clock.advance(1);
      assert.equal((await get(grant)).status, 403);
      assert.equal((await put(upload, content)).status, 403);
    });

    it('holds its limits', async () => {
      const hash = sha256(content);
      await assert.rejects(grants.grantDownload('x', GRANT_MAX_SECONDS + 1), failsWith('limit'));
      await assert.rejects(grants.grantDownload('x', 0), failsWith('limit'));
      await assert.rejects(grants.grantUpload('x', -1, hash, 60), failsWith('limit'));
      await assert.rejects(grants.grantUpload('x', 1, hash.subarray(1), 60), failsWith('usage'));
      await assert.rejects(grants.grantUpload('../x', 1, hash, 60), failsWith('usage'));
    });
  });
}
