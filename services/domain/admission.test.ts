import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { admit, release, type Slots } from './admission.ts';

test('never more jobs than slots, never a job twice, and a released slot serves the next', () => {
  const act = fc.record({ job: fc.constantFrom('a', 'b', 'c', 'd', 'e'), take: fc.boolean() });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 4 }), fc.array(act, { maxLength: 50 }), (capacity, acts) => {
      let slots: Slots = { holders: [], capacity };
      const held = new Set<string>();
      for (const { job, take } of acts) {
        if (!take) {
          slots = release(slots, job);
          held.delete(job);
        } else {
          const answer = admit(slots, job);
          assert.equal(answer.admitted, held.has(job) || held.size < capacity);
          if (answer.admitted) {
            slots = answer.slots;
            held.add(job);
          }
        }
        assert.deepEqual(new Set(slots.holders), held);
        assert.equal(slots.holders.length, held.size);
      }
    }),
  );
});
