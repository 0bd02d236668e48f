/** Hands a text to whoever asked for it, as a file. */
export function save(text: string, name: string): void {
  // With a byte order mark, or spreadsheets take Georgian for something else.
  const address = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  URL.revokeObjectURL(address);
}
