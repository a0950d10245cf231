import assert from 'node:assert/strict';
import { it } from 'node:test';
import { formatOfName, probeFormat } from './format.ts';

function head(at: number, bytes: string, encoding: BufferEncoding = 'latin1'): Buffer {
  const all = Buffer.alloc(4096);
  Buffer.from(bytes, encoding).copy(all, at);
  return all;
}

it('a format is known by its first bytes', () => {
  assert.equal(probeFormat(head(0, '514649fb00000003', 'hex')), 'qcow2');
  assert.equal(probeFormat(head(0, '514649fb00000001', 'hex')), 'raw', 'the ancestor that nobody uses');
  assert.equal(probeFormat(head(0, 'KDMV')), 'vmdk');
  assert.equal(probeFormat(head(0, '# Disk DescriptorFile\n')), 'vmdk');
  assert.equal(probeFormat(head(0, 'vhdxfile')), 'vhdx');
  assert.equal(probeFormat(head(0, 'conectix')), 'vpc');
  assert.equal(probeFormat(head(64, '7f10dabe', 'hex')), 'vdi');
});

it('anything else is raw, however short', () => {
  for (const bytes of [Buffer.alloc(0), Buffer.from('QFI'), Buffer.from('KDM'), Buffer.alloc(4096), head(1, 'KDMV')]) {
    assert.equal(probeFormat(bytes), 'raw');
  }
});

it('a name claims a format by its ending alone', () => {
  const names = ['a.QCOW2', '/x.raw/disk', 'a.vhd', 'a.img', 'a.raw'];
  assert.deepEqual(names.map(formatOfName), ['qcow2', undefined, 'vpc', undefined, 'raw']);
});
