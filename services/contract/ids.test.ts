import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { crockford, isId, makeId, timeOfId } from './ids.ts';

describe('an id', () => {
  const moments = fc.nat({ max: 2 ** 48 - 1 });
  const bodies = fc.uint8Array({ minLength: 10, maxLength: 10 });

  it('tells its kind and the moment it was made of', () => {
    fc.assert(
      fc.property(moments, bodies, (ms, random) => {
        const id = makeId('point', ms, random);
        assert.ok(isId('point', id) && !isId('machine', id));
        assert.equal(timeOfId(id), ms);
      }),
      { seed: 16 },
    );
  });

  it('sorts by time, whatever its random part', () => {
    fc.assert(
      fc.property(moments, bodies, moments, bodies, (a, one, b, other) => {
        if (a !== b) assert.equal(makeId('point', a, one) < makeId('point', b, other), a < b);
      }),
      { seed: 17 },
    );
  });

  it('writes 128 bits as 26 digits of Crockford’s alphabet', () => {
    assert.equal(crockford(new Uint8Array(16)), '0'.repeat(26));
    assert.equal(crockford(new Uint8Array(16).fill(255)), `7${'Z'.repeat(25)}`);
    assert.throws(() => crockford(new Uint8Array(15)), RangeError);
  });
});
