import { HoldfastError } from '#contract/errors.ts';
import type { Blobs } from '#ports/blobs.ts';

/** A store of which one object at a time can be damaged, gone or another one, while its files stay as they are. */
export class DamagedBlobs implements Blobs {
  readonly #inner: Blobs;
  #damage: { readonly key: string; readonly content: Buffer | undefined } | undefined;
  /** Keys asked for since it was cleared. */
  readonly touched = new Set<string>();

  constructor(inner: Blobs) {
    this.#inner = inner;
  }

  /** @param content  what the object holds from now on; `undefined`: it is gone */
  damage(key: string, content: Buffer | undefined): void {
    this.#damage = { key, content };
  }

  heal(): void {
    this.#damage = undefined;
  }

  async get(key: string) {
    this.touched.add(key);
    if (key !== this.#damage?.key) return await this.#inner.get(key);
    const { content } = this.#damage;
    return content && { content: Buffer.from(content), version: 'damaged' };
  }

  async getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    this.touched.add(key);
    if (key !== this.#damage?.key) return await this.#inner.getRange(key, offset, length, signal);
    const { content } = this.#damage;
    if (content === undefined) throw new HoldfastError('missing', `There is no object ${key}`);
    if (offset + length > content.length) throw new HoldfastError('damaged', `The object ${key} ends early`);
    return new Uint8Array(content.subarray(offset, offset + length));
  }

  async head(key: string) {
    this.touched.add(key);
    if (key !== this.#damage?.key) return await this.#inner.head(key);
    const { content } = this.#damage;
    return content && { sizeBytes: content.length, version: 'damaged' };
  }

  async list(prefix: string, cursor?: string) {
    const page = await this.#inner.list(prefix, cursor);
    const { key, content } = this.#damage ?? {};
    const blobs = page.blobs.flatMap((blob) =>
      blob.key !== key ? [blob] : content ? [{ key, sizeBytes: content.length }] : [],
    );
    return { ...page, blobs };
  }

  putIfAbsent: Blobs['putIfAbsent'] = (key, parts, options) => this.#inner.putIfAbsent(key, parts, options);
  replaceIf: Blobs['replaceIf'] = (key, content, expected) => this.#inner.replaceIf(key, content, expected);
  delete: Blobs['delete'] = (key) => this.#inner.delete(key);
}
