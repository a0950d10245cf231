import assert from 'node:assert/strict';
import { it } from 'node:test';
import { ExtentList } from './extents.ts';

it('neighbours and overlaps are joined, gaps kept', () => {
  const list = new ExtentList();
  for (const [offset, length] of [
    [0, 10],
    [10, 5],
    [12, 2],
    [20, 0],
    [30, 1],
  ] as const)
    list.add(offset, length);
  assert.deepEqual(list.extents, [
    { offset: 0, length: 15 },
    { offset: 30, length: 1 },
  ]);
});

it('beyond the limit small gaps are given up, never data', () => {
  const list = new ExtentList(100);
  const step = 1_000_000;
  for (let i = 0; i < 5000; i++) list.add(i * step, 1 + (i % 7));
  assert.ok(list.extents.length <= 100);
  let next = 0;
  for (const { offset, length } of list.extents) {
    while (next < 5000 && next * step >= offset && next * step + 1 + (next % 7) <= offset + length) next++;
  }
  assert.equal(next, 5000);
});
