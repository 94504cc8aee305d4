/** Collects the values of an option that may be repeated or hold several with commas. For commander's `argParser`. */
export function collect(value: string, previous: readonly string[] | undefined): string[] {
  const values = value
    .split(',')
    .map(part => part.trim())
    .filter(Boolean)
  return [...(previous ?? []), ...values]
}
