import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createConnection, createServer } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { connectNbd } from '#edge/nbd/client.ts';
import {
  encodeOption,
  encodeOptionReply,
  HANDSHAKE,
  MAGIC_OPTION,
  MAGIC_SERVER,
  OPTION,
  REPLY,
  uint32,
} from '#edge/nbd/protocol.ts';
import { serveNbd } from '#edge/nbd/server.ts';
import type { NbdAddress } from '#edge/sources/disk.ts';
import { makeCertificates, must, needs, noise, run, startNbdkit, startQemuNbd, temporaryFolder } from './nbd.ts';

const MiB = 1024 * 1024;
const unauthorized = (error: unknown) => isHoldfastError(error, 'unauthorized');

async function readsBack(address: NbdAddress): Promise<void> {
  await using client = await connectNbd(address);
  const data = noise('secret', 3 * MiB + 5);
  await client.write(1, data);
  const found = Buffer.alloc(data.length);
  await client.read(1, found);
  assert.ok(found.equals(data));
}

describe('NBD over TLS', { skip: needs('openssl', 'nbdkit', 'nbdcopy', 'qemu-nbd') }, () => {
  it('reads and writes at nbdkit, whose certificate is checked against the given authority alone', async (t) => {
    const certs = await makeCertificates(t);
    const { address } = await startNbdkit(t, ['--tls=require', `--tls-certificates=${certs.folder}`, 'memory', '8M'], {
      tcp: true,
    });
    await readsBack({ ...address, tls: { caFile: certs.caFile } });
    await readsBack({ ...address, host: 'localhost', tls: { caFile: certs.caFile } });
    await assert.rejects(connectNbd({ ...address, tls: { caFile: certs.otherCaFile } }), unauthorized);
    await assert.rejects(
      connectNbd({ ...address, tls: { caFile: certs.caFile, serverName: 'other.example' } }),
      unauthorized,
    );
    await assert.rejects(connectNbd(address), unauthorized, 'in the clear');
    await assert.rejects(connectNbd({ ...address, tls: { caFile: join(certs.folder, 'none.pem') } }), (e) =>
      isHoldfastError(e, 'usage'),
    );
  });

  it('shows its own certificate where the server asks for one', async (t) => {
    const certs = await makeCertificates(t);
    const args = ['--tls=require', '--tls-verify-peer', `--tls-certificates=${certs.folder}`, 'memory', '8M'];
    const { address } = await startNbdkit(t, args, { tcp: true });
    await readsBack({ ...address, tls: { caFile: certs.caFile, ...certs.client } });
    await assert.rejects(connectNbd({ ...address, tls: { caFile: certs.caFile } }), (e) => isHoldfastError(e));
  });

  it('reads and writes at qemu-nbd', async (t) => {
    const certs = await makeCertificates(t);
    const image = join(await temporaryFolder(t), 'disk');
    await must('qemu-img', 'create', '-q', '-f', 'raw', image, '8M');
    const creds = [
      '--object',
      `tls-creds-x509,id=tls0,endpoint=server,verify-peer=on,dir=${certs.folder}`,
      '--tls-creds',
      'tls0',
    ];
    const { address } = await startQemuNbd(t, [...creds, '-f', 'raw', image], { tcp: true });
    await readsBack({ ...address, tls: { caFile: certs.caFile, ...certs.client } });
  });

  it('never goes on in the clear where the server has no TLS, or pretends to', async (t) => {
    const certs = await makeCertificates(t);
    const { address } = await startNbdkit(t, ['memory', '1M'], { tcp: true });
    await assert.rejects(connectNbd({ ...address, tls: { caFile: certs.caFile } }), unauthorized);
    // An attacker in between adds an answer of his own behind the acknowledgement.
    const hello = Buffer.alloc(18);
    hello.writeBigUInt64BE(MAGIC_SERVER, 0);
    hello.writeBigUInt64BE(MAGIC_OPTION, 8);
    hello.writeUInt16BE(HANDSHAKE.fixedNewstyle, 16);
    const liar = createServer((socket) => {
      socket.on('error', () => {});
      socket.write(hello);
      socket.once('data', () =>
        socket.write(
          Buffer.concat([
            encodeOptionReply(OPTION.startTls, REPLY.ack),
            encodeOptionReply(OPTION.structuredReply, REPLY.ack),
          ]),
        ),
      );
    });
    await new Promise<void>((resolve) => liar.listen(0, '127.0.0.1', resolve));
    t.after(() => liar.close());
    const port = (liar.address() as { port: number }).port;
    const tls = { caFile: certs.caFile };
    await assert.rejects(connectNbd({ host: '127.0.0.1', port, exportName: '', tls }), (e) =>
      isHoldfastError(e, 'protocol'),
    );
  });

  it('serves libnbd and our own client, with and without certificates of the clients', async (t) => {
    const certs = await makeCertificates(t);
    const content = noise('served', 5 * MiB + 7);
    const disk = {
      sizeBytes: content.length,
      readOnly: true,
      read: (offset: number, into: Uint8Array) => void content.copy(into, 0, offset, offset + into.length),
    };
    for (const mutual of [false, true]) {
      await using server = await serveNbd({
        listen: { host: '127.0.0.1', port: 0 },
        exports: new Map([['disk', disk]]),
        tls: { ...certs.server, ...(mutual ? { clientCaFile: certs.caFile } : {}) },
      });
      const { address } = server;
      const copy = join(await temporaryFolder(t), 'copy');
      await must('nbdcopy', `nbds://127.0.0.1:${address.port}/disk?tls-certificates=${certs.folder}`, copy);
      assert.ok((await readFile(copy)).equals(content));
      const found = Buffer.alloc(content.length);
      await using client = await connectNbd({ ...address, tls: { caFile: certs.caFile, ...certs.client } });
      await client.read(0, found);
      assert.ok(found.equals(content));
      assert.notEqual((await run('nbdinfo', `nbd://127.0.0.1:${address.port}/disk`)).status, 0, 'in the clear');
      await assert.rejects(connectNbd({ ...address, exportName: 'disk' }), unauthorized);
      if (!mutual) continue;
      const refused = (e: unknown) => isHoldfastError(e, 'unauthorized') || isHoldfastError(e, 'unreadable');
      await assert.rejects(connectNbd({ ...address, tls: { caFile: certs.caFile } }), refused, 'without a certificate');
      await assert.rejects(
        connectNbd({ ...address, tls: { caFile: certs.caFile, ...certs.stranger } }),
        refused,
        'of a stranger',
      );
    }
  });

  it('hangs up on bytes in the clear behind STARTTLS, which would pass for the secured client’s own', async (t) => {
    const certs = await makeCertificates(t);
    const told: unknown[] = [];
    await using server = await serveNbd({
      listen: { host: '127.0.0.1', port: 0 },
      exports: new Map(),
      tls: certs.server,
      onError: (error) => told.push(error),
    });
    const socket = createConnection(server.address.port!, '127.0.0.1');
    socket.write(Buffer.concat([uint32(3), encodeOption(OPTION.startTls), encodeOption(OPTION.list)]));
    socket.resume();
    await once(socket, 'close');
    assert.ok(isHoldfastError(told[0], 'protocol'));
  });

  it('works over a unix socket as well', async (t) => {
    const certs = await makeCertificates(t);
    const content = noise('unix', MiB);
    const disk = {
      sizeBytes: MiB,
      readOnly: true,
      read: (o: number, into: Uint8Array) => void content.copy(into, 0, o, o + into.length),
    };
    const socket = join(await temporaryFolder(t), 's');
    await using server = await serveNbd({ listen: { socket }, exports: new Map([['', disk]]), tls: certs.server });
    await using client = await connectNbd({ ...server.address, tls: { caFile: certs.caFile } });
    const found = Buffer.alloc(MiB);
    await client.read(0, found);
    assert.ok(found.equals(content));
  });
});
