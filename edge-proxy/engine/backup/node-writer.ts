import type { ChunkNamer } from '#repository/chunk.ts';
import type { SealedChunk } from '#repository/pack.ts';
import { SEAL_OVERHEAD_BYTES, type Sealer } from '#repository/seal.ts';
import { sha256 } from '#repository/sha256.ts';
import type { KnownChunks } from '../known-chunks.ts';
import type { ChunkClaims } from './claims.ts';

/** Node packs are small: a restore wants few of their bytes, and marking wants their footers only. */
const NODE_PACK_BYTES = 4 * 1024 * 1024;
const NODE_LEVEL = 3;

/** Stores the nodes of image trees, in packs of their own. */
export class NodeWriter {
  readonly #namer: ChunkNamer;
  readonly #sealer: Sealer;
  readonly #claims: ChunkClaims;
  readonly #known: KnownChunks;
  readonly #emit: (chunks: readonly SealedChunk[]) => void;
  #chunks: SealedChunk[] = [];
  #bytes = 0;

  constructor(
    namer: ChunkNamer,
    sealer: Sealer,
    claims: ChunkClaims,
    known: KnownChunks,
    emit: (chunks: readonly SealedChunk[]) => void,
  ) {
    this.#namer = namer;
    this.#sealer = sealer;
    this.#claims = claims;
    this.#known = known;
    this.#emit = emit;
  }

  /** @returns the node's id; it is known to the vault, or on its way to a pack */
  write(content: Uint8Array, children: Uint8Array): Buffer {
    const buffer = Buffer.from(content.buffer, content.byteOffset, content.byteLength);
    const id = this.#namer.ofContent('node', buffer);
    if (this.#known.has(id) || !this.#claims.claim(id)) return id;
    const stored = this.#sealer.compress(buffer, NODE_LEVEL);
    const bytes = Buffer.alloc(stored.length + SEAL_OVERHEAD_BYTES);
    this.#sealer.seal('node', id, stored, buffer.length, bytes);
    this.#chunks.push({ bytes, sha256: sha256(bytes), children });
    this.#bytes += bytes.length + children.length;
    if (this.#bytes >= NODE_PACK_BYTES) this.flush();
    return id;
  }

  flush(): void {
    if (this.#chunks.length > 0) this.#emit(this.#chunks);
    this.#chunks = [];
    this.#bytes = 0;
  }
}
