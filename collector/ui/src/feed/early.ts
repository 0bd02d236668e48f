/**
 * Opens the live feed while the page's own code is still on its way, and keeps what comes until that takes it over: the first
 * picture then waits for whichever is slower, and not for both. It imports nothing, since it would wait for that.
 */

export interface Early {
  socket: WebSocket;
  heard: string[];
}

declare global {
  /** Null once the page's own code has looked for it. */
  var wardEarly: Early | null | undefined;
}

if (globalThis.wardEarly === undefined) {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/ws/updates`);
  const heard: string[] = [];
  socket.onmessage = (event) => heard.push(String(event.data));
  globalThis.wardEarly = { socket, heard };
}
