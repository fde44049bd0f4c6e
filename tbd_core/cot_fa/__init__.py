"""Chain-of-Thought Facial Animation (paper 3.2): emotion -> action units -> muscles -> prompts. No torch."""
