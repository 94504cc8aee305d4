/**
 * What a terminal might obey instead of showing: control characters but for the line break and the tab, the second set of
 * them (128-159), and the marks that turn the direction of writing or break lines.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this is about
const UNPRINTABLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g

/**
 * Text of a server or of a file, for people: whatever could move the cursor, colour or rename a terminal, or hide other
 * text stands there as its escape (`\u001b`). Line breaks and tabs stay.
 */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, found => `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
