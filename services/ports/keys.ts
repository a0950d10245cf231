/** Wrapping of vault keys by a key that never leaves its keeper. Adapters: a sealed key file (local), KMS (aws). */
export interface Keys {
  /** @param context  public facts bound to the wrapping, such as the vault id; unwrap must give the same */
  wrap(plain: Uint8Array, context: Readonly<Record<string, string>>): Promise<Uint8Array>;
  /** Throws `wrong-key` if it was not wrapped here or the context differs. */
  unwrap(wrapped: Uint8Array, context: Readonly<Record<string, string>>): Promise<Uint8Array>;
}
